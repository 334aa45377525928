/**
 * Fine-tunes a frozen LLaMa through adapters (LoRA) on two devices, without and with 2BP, from equal starts on equal batches.
 * Prints how many parameters train, what W still costs of all work, both losses, which agree to 1e-5, and each rank's peak of
 * memory: with a frozen base W is next to nothing, so 2BP has little to gain, while x and dy of the adapters wait for it as before.
 */
import { adamw, createModel, createPipeline, type Model, openDevices, schedulePair, textSource } from "twobp";
import { isTrained } from "twobp/layers";
import { countParameters, loraModel } from "twobp/models";

/** The model with an adapter beside queries, values and outputs of each attention, and beside the end of each MLP. */
function adapted(base: Model, { rank, alpha }: { rank: number; alpha: number }): Model {
  return loraModel(base, { rank, alpha, targets: /attention\.(q|v|out)$|mlp\.down$/ });
}

/** The part of W in the work of a backward and forward. */
function shareOfW({ layers, inputShape }: Model): number {
  let shape = inputShape(1), w = 0, all = 0;
  for (const layer of layers) {
    const flops = layer.flops(shape);
    w += flops.w;
    all += flops.f + flops.i + flops.w;
    shape = layer.outputShape(shape);
  }
  return w / all;
}

const set = await openDevices(2);
const base = createModel("llama-tiny"), model = adapted(base, { rank: 4, alpha: 8 });
console.log(`${countParameters(model, isTrained)} parameters train, ${countParameters(base)} are frozen`);
for (const each of [base, model]) console.log(`${each.name}: W is ${(100 * shareOfW(each)).toFixed(1)} % of the work`);

const { base: without, split } = schedulePair("1f1b-1", { devices: 2 });
const text = new TextEncoder().encode("to be or not to be, ".repeat(50));
const curves: number[][] = [];
for (const [name, schedule] of Object.entries({ "without 2BP": without, "with 2BP": split })) {
  const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 5e-3 }), seed: 1 });
  const source = textSource(text, { length: 64, seed: 1 }), losses: number[] = [];
  for (let step = 0; step < 10; step++) {
    const { loss, peaks } = await pipeline.step(schedule, source.next(4));
    losses.push(loss);
    if (step === 9) console.log(name, peaks.map(({ total }) => `${(total / 2 ** 20).toFixed(1)} MiB`).join(", "));
  }
  console.log(name, losses.map((loss) => loss.toFixed(5)).join(" "));
  curves.push(losses);
  pipeline.close();
}
const apart = Math.max(...curves[0].map((loss, step) => Math.abs(loss - curves[1][step])));
console.log(`the losses are ${apart.toExponential(1)} apart at most`);
if (!(apart <= 1e-5)) throw new Error("2BP changed the training");
set.close();
