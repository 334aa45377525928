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

/** Far below the 65,530 memory mappings that Linux gives a process. */
const mostForgotten = 4096;
let forgotten = 0;

/**
 * Counts native objects that have no `destroy` and were let go of, and collects them when they are many: `mappings` is how
 * many memory mappings lavapipe holds for them. The collector itself sees small objects only, and is in no hurry.
 */
export function forgetNative(mappings: number): void {
  forgotten += mappings;
  if (forgotten < mostForgotten) return;
  forgotten = 0;
  collectGarbage();
}
