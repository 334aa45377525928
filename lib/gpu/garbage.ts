/** Garbage collection at a time of our choosing: between measurements, and where native objects have been dropped. */
import process from "node:process";
import v8 from "node:v8";
import vm from "node:vm";

let collect: (() => void) | undefined;

/**
 * Collects garbage now. WebGPU's objects are garbage by the hundred in each step, and Deno's runtime takes quadratic time to
 * finalise them: 0.1 to 0.3 s in one piece every fifty small steps, if they are left to pile up.
 */
export function collectGarbage(): void {
  if (!collect) {
    if (process.versions.bun) {
      const { Bun } = globalThis as unknown as { Bun: { gc(synchronous: boolean): void } };
      collect = () => Bun.gc(true);
    } else {
      v8.setFlagsFromString("--expose-gc");
      collect = vm.runInNewContext("gc") as () => void;
    }
  }
  collect();
}
