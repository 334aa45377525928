/**
 * `deno task bench peers`: matrix products and the training step of a small GPT in this project and in other WebGPU
 * libraries, on the same adapter, in one run. The peers are installed in this folder by `deno task peers:install`.
 */
import { Command, InvalidArgumentError, Option } from "commander";
import { certaintyNotes, progress, rangeText, type Table, tableText } from "twobp/report";
import { generator } from "twobp/train";
import * as flag from "../../lib/cli/flags.ts";
import { openOutputs } from "../../lib/cli/outputs.ts";
import { difference, interleave, type PeerRatio, type PeerRow, ratio, summary } from "./compare.ts";
import type { Contender, Job } from "./contender.ts";
import { installWebGpu } from "./environment.ts";
import { batch, gptSizes } from "./gpt.ts";
import { openJax } from "./jax.ts";
import { openTfjs } from "./tfjs.ts";
import { initialWeights, openTwobp } from "./twobp.ts";

/** Rows, columns and inner dimension of a product. */
type Size = readonly [number, number, number];

/** Two squares, and what a llama-tiny multiplies in the forward of 8 sequences of 64 tokens. */
const defaultSizes = "512x512x512,1024x1024x1024,512x384x128,512x128x128,512x704x128,512x128x352,512x256x128";
/** Multiplications that a run of products makes at least, so that waiting for its end does not count. */
const productWork = 2 ** 32;
/** How far a product or a gradient may be off, in shares of its largest element. */
const tolerance = 1e-3;
/** Steps over which losses must agree, to {@link tolerance}. */
const checkedSteps = 3;

interface Options {
  sizes: Size[];
  repeats: number;
  alone?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

/** The command line; `bench/main.ts` adds it to the others. */
export const peers = new Command("peers")
  .description(
    "Matrix products and a GPT's training step against jax-js (jit) and TensorFlow.js, on the same adapter.",
  )
  .addOption(
    new Option("--sizes <MxNxK,...>", "products: rows x columns x inner dimension").argParser(sizes)
      .default(sizes(defaultSizes), defaultSizes),
  )
  .addOption(flag.repeats("rounds of runs", 21))
  .option("--alone", "this project without the peers, which need not be installed then: to stand beside peers/torch.py")
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const { sizes, repeats, alone } = options;
  const out = openOutputs(options);
  const { say } = out;
  await installWebGpu();
  const weights = await initialWeights();
  const own = await openTwobp();
  const contenders: Contender[] = [own];
  for (const open of alone ? [] : [openJax, openTfjs]) contenders.push(await open());
  say(
    `${contenders.map(({ name, version }) => `${name} ${version}`).join(", ")} on ${own.adapter}`,
  );
  const bar = progress(sizes.length + 1, "jobs");
  const rows: PeerRow[] = [];
  const ratios: PeerRatio[] = [];
  const compare = async (entries: Entry[]) => {
    const { job } = entries[0];
    const able = entries.filter(({ prepared }) => prepared);
    const measured = await interleave(
      able.map(({ prepared }) => () => prepared!.run()),
      repeats,
    );
    for (const entry of entries) {
      const { contender: { name, version }, times = 1, flops, off, error } = entry;
      const ms = measured[able.indexOf(entry)]?.map((each) => each / times);
      rows.push({
        job,
        contender: name,
        version,
        runs: ms?.length ?? 0,
        ...ms ? { ms: summary(ms) } : {},
        ...ms && flops ? { gflops: flops / summary(ms).median / 1e6 } : {},
        ...off === undefined ? {} : { difference: off },
        ...error ? { error } : {},
      });
      if (ms && entry !== entries[0]) {
        ratios.push(
          ratio(job, name, measured[0].map((each) => each / times), ms),
        );
      }
      entry.prepared?.close();
    }
    bar.step(job);
  };
  for (const size of sizes) {
    await compare(await prepareProducts(contenders, size));
  }
  await compare(await prepareTraining(contenders, weights));
  bar.done();
  say(tableText(timeTable(rows)));
  if (!alone) say(tableText(ratioTable(ratios)));
  const notes = [
    ...alone ? [] : [
      "Ratio: a peer's time over that of twobp in the same round, median; each contender's turn to begin comes in turn.",
    ],
    ...rows.flatMap(({ job, contender, error }) => error ? [`${contender}, ${job}: ${error}`] : []),
  ];
  for (const note of notes) say(note);
  await out.results("bench", {
    title: "Peers",
    report: { schema: 1, adapter: own.adapter, rows, ratios, model: { ...gptSizes, batch, optimizer: "Adam" } },
    sections: () => [
      { heading: "Times", text: `On ${own.adapter}, real.`, table: timeTable(rows) },
      ...alone
        ? []
        : [{ heading: "Times of peers over those of twobp", text: notes.join("\n\n"), table: ratioTable(ratios) }],
    ],
  });
  contenders.forEach((contender) => contender.close());
}

/** A contender with its work prepared and checked, or why not. */
interface Entry {
  readonly job: string;
  readonly contender: Contender;
  readonly prepared?: Job<unknown>;
  /** Repetitions in a run. */
  readonly times?: number;
  /** Of one repetition. */
  readonly flops?: number;
  readonly off?: number;
  readonly error?: string;
}

async function prepareProducts(
  contenders: readonly Contender[],
  size: Size,
): Promise<Entry[]> {
  const [m, n, k] = size;
  const random = generator(1);
  const matrix = (elements: number) => Float32Array.from({ length: elements }, () => random.uniform() - 0.5);
  const a = matrix(m * k), b = matrix(k * n);
  const times = Math.max(1, Math.round(productWork / (m * n * k)));
  let reference: Float32Array | undefined;
  const entries: Entry[] = [];
  for (const contender of contenders) {
    entries.push(
      await attempt({
        job: `matmul ${size.join("x")}`,
        contender,
        times,
        flops: 2 * m * n * k,
      }, async () => {
        const prepared = await contender.matmul(size, a, b, times);
        await prepared.run(); // compiles
        const product = await prepared.product();
        reference ??= product;
        return { prepared, off: difference(reference, product) };
      }),
    );
  }
  return entries;
}

/** All compute the same function: the same gradients from the same weights, and the same losses over a few steps. */
async function prepareTraining(
  contenders: readonly Contender[],
  weights: Parameters<Contender["training"]>[0],
) {
  const random = generator(2);
  const { vocabulary, length } = gptSizes;
  const stream = Uint32Array.from(
    { length: batch * length + 1 },
    () => random.integer(vocabulary),
  );
  const tokens = {
    inputs: stream.subarray(0, -1),
    targets: stream.subarray(1),
  };
  let gradients: Map<string, Float32Array> | undefined,
    losses: number[] | undefined;
  const entries: Entry[] = [];
  for (const contender of contenders) {
    entries.push(
      await attempt({ job: "training step", contender }, async () => {
        const prepared = await contender.training(weights, tokens);
        const found = await prepared.gradients();
        const each: number[] = [];
        for (let step = 0; step < checkedSteps; step++) {
          each.push(await prepared.run());
        }
        gradients ??= found;
        losses ??= each;
        const off = [...gradients].map(([name, gradient]) => difference(gradient, found.get(name)));
        return { prepared, off: Math.max(difference(losses, each), ...off) };
      }),
    );
  }
  return entries;
}

/** A peer that cannot do the work, or computes something else, is left out with its reason; this project may not fail. */
async function attempt(
  entry: Entry,
  prepare: () => Promise<{ prepared: Job<unknown>; off: number }>,
): Promise<Entry> {
  try {
    const { prepared, off } = await prepare();
    if (off <= tolerance) return { ...entry, prepared, off };
    prepared.close();
    return {
      ...entry,
      off,
      error: `its result differs by ${off.toExponential(1)} of the largest element`,
    };
  } catch (error) {
    if (entry.contender.name === "twobp") throw error;
    return { ...entry, error: (error as Error).message };
  }
}

function timeTable(rows: readonly PeerRow[]): Table {
  return {
    columns: ["job", "contender", "ms", "quartiles", "GFLOP/s", "off by"],
    rows: rows.map(({ job, contender, ms, gflops, difference }) => [
      job,
      contender,
      ms?.median.toFixed(2) ?? "-",
      ms?.quartiles.map((each) => each.toFixed(2)).join(" - ") ?? "-",
      gflops?.toFixed(1) ?? "-",
      difference?.toExponential(1) ?? "-",
    ]),
  };
}

function ratioTable(ratios: readonly PeerRatio[]): Table {
  return {
    columns: ["job", "peer", "ratio", "quartiles", "95 % interval", "pairs"],
    rows: ratios.map(({ job, peer, ratio, spread, interval, pairs }) => [
      job,
      peer,
      ratio.toFixed(2),
      rangeText(spread, 2),
      rangeText(interval, 2),
      pairs,
    ]),
    notes: certaintyNotes(ratios.map((each) => ({ ...each, name: `${each.peer}, ${each.job}` }))),
  };
}

function sizes(text: string): Size[] {
  return text.split(",").map((each) => {
    const [, ...numbers] = /^(\d{1,5})x(\d{1,5})x(\d{1,5})$/.exec(each.trim()) ?? [];
    const [m, n, k] = numbers.map(Number);
    if (numbers.length === 3 && m * n * k > 0) return [m, n, k];
    throw new InvalidArgumentError(`"${each}" is not a size like 512x384x128.`);
  });
}
