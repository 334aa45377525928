/** Devices that are lost, or have no memory left, while a training saves: by injection, at places all over the training. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { isOfMachine } from "../../lib/gpu/device_error.ts";
import { openDevices } from "../../lib/gpu/devices.ts";
import { llama } from "../../lib/models/llama.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { textSource } from "../../lib/train/data.ts";
import { lastWhole } from "../../lib/training/checkpoint_folder.ts";
import { train } from "../../lib/training/train.ts";
import { type Counts, type Faults, inject } from "../faults.ts";
import { tiny } from "../runtime/support.ts";

const skip = process.env.TWOBP_WEBGPU === "deno" && "the faults are put into Dawn's objects";
const root = mkdtempSync(join(tmpdir(), "twobp-saving-faults-"));
after(() => rmSync(root, { recursive: true, force: true }));

const steps = 3;
/** Its embedding takes a buffer of its own to be read. */
const model = llama("saved", { ...tiny, vocabulary: 260, width: 64 });
const text = Uint8Array.from({ length: 4000 }, (_, at) => at * at % 256);

/** What a training that saves after each update came to: updates that it told of, where it went on, the last parameters. */
interface Came {
  readonly made: number;
  readonly from?: number;
  readonly end?: ReadonlyMap<string, Float32Array>;
  readonly error?: Error;
}

async function trained(folder: string): Promise<Came> {
  const set = await openDevices(2);
  let made = 0;
  try {
    const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 0.01 }), seed: 3 });
    try {
      const { resumed } = await train(pipeline, {
        schedule: twoStage(generate("1f1b-1", { devices: 2 })),
        data: { open: (from) => textSource(text, { length: tiny.length, seed: 5, from }) },
        ...{ samples: 4, steps, resume: true, save: { folder, every: 1 } },
        onStep: ({ step }) => void (made = step + 1),
      });
      return { made, ...resumed ? { from: resumed.step } : {}, end: await pipeline.parameters() };
    } catch (error) {
      return { made, error: error as Error };
    } finally {
      pipeline.close();
    }
  } finally {
    set.close();
  }
}

const kinds: [keyof Faults, (counts: Counts) => number][] = [
  ["lostAtSubmission", ({ submissions }) => submissions],
  ["lostAtBuffer", ({ buffers }) => buffers],
  ["outOfMemoryAt", ({ buffers }) => buffers],
];

test("whenever a device fails, checkpoints are whole, and the next start goes on from the last to the same bits", {
  skip,
}, async () => {
  const counts = inject();
  const undisturbed = await trained(join(root, "undisturbed"));
  assert.equal(undisturbed.error, undefined);
  const totals = kinds.map(([, of]) => of(counts)), reached = new Set<number>();
  for (const [kind, [name]] of kinds.entries()) {
    // Most buffers are made by the first update, and by each reading of values that are saved.
    for (const share of name === "lostAtSubmission" ? [0.45, 0.5] : [0.9, 0.97]) {
      const at = Math.ceil(totals[kind] * share);
      const folder = join(root, `${name}-${at}`);
      inject({ [name]: at });
      const { made, error } = await trained(folder);
      inject();
      assert.ok(error && isOfMachine(error), `${name} ${at}: ${error?.stack}`);
      assert.doesNotMatch(error.message, /\n/);
      const damaged: string[] = [], saved = Number(lastWhole(folder, damaged)?.description.step ?? 0);
      assert.deepEqual(damaged, [], `${name} ${at}`);
      assert.ok(
        readdirSync(folder).every((each) => /^step-\d{6}$/.test(each)),
        `${name} ${at}: ${readdirSync(folder)}`,
      );
      assert.ok(saved === made || saved === made - 1, `${name} ${at}: ${saved} saved of ${made}`);
      if (saved === made - 1) reached.add(kind);
      const again = await trained(folder);
      assert.equal(again.from ?? 0, saved, `${name} ${at}`);
      assert.deepEqual(again.end, undisturbed.end, `${name} ${at}`);
    }
  }
  assert.equal(
    reached.size,
    kinds.length,
    "a fault that has not come while values were read to be saved proves little",
  );
});
