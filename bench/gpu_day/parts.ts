/** The parts of a GPU day: what each runs, at real sizes or at those that only show whether it runs. */
import { existsSync, readdirSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { operations } from "twobp/ops";
import { runtimeArguments } from "../../lib/cli/guarded.ts";
import { testCounts } from "./test_counts.ts";

/** Top of the sources. */
export const root: string = fileURLToPath(new URL("../..", import.meta.url));

/** What a part is told. */
export interface Setting {
  /** Sizes that only show whether it runs. */
  readonly quick: boolean;
  /** File that the part's numbers go to. */
  readonly json: string;
  /** Seconds that the part has. */
  readonly seconds: number;
  /** A Python that has PyTorch, if there is one. */
  readonly python?: string;
}

/** What one command of the day runs, and its share of the time. */
export interface Part {
  /** Name, for `--parts`, files and the summary. */
  readonly name: string;
  /** What it does, in the summary. */
  readonly what: string;
  /** Share of the time: its weight, over those of this part and of all that come after it. */
  readonly weight: number;
  /** What it cannot do without. */
  readonly needs?: "f16" | "python" | "deno";
  /** Program and arguments. */
  readonly command: (setting: Setting) => readonly string[];
  /** Makes the numbers of what the program prints, where it does not write them to the file itself. */
  readonly numbers?: (stdout: string) => object;
}

/** Operations that have a part of their own: one that is slow or wrong does not take the others' numbers along. */
const apart = {
  products: ["matmul"],
  attention: ["attention", "hideDocuments", "softmax", "softmaxBackward", "cachedAttention", "appendKeys"],
  scans: [
    ...["selectiveScan", "selectiveScanBackwardInput", "selectiveScanSums", "selectiveScanBackwardWeight"],
    ...["selectiveScanOn", "causalConv", "causalConvOn", "causalConvBackwardInput"],
  ],
  convolutions: ["conv2d", "conv2dBackwardInput", "conv2dBackwardWeight"],
} as const;

/** The models whose layers are measured, and how many of their samples at once. */
const real = {
  products: { model: "llama-160m", samples: 2 },
  attention: { model: "llama-160m", samples: 2 },
  scans: { model: "paper-mamba-1.4b", samples: 2 },
  convolutions: { model: "paper-resnet-152", samples: 8 },
} as const;
const tiny = { products: "llama-tiny", attention: "llama-tiny", scans: "mamba-tiny", convolutions: "resnet-tiny" };

/** Products that PyTorch is measured with beside this project. */
const sizes = (quick: boolean) => quick ? "512x512x512" : "512x512x512,1024x1024x1024,4096x4096x4096";

const script = (
  path: string,
  ...args: string[]
) => [process.execPath, ...runtimeArguments(), `${root}${path}`, ...args];
const bench = (...args: string[]) => script("bench/main.ts", ...args);

/** A part's own end, before that of its share of the time: what starts before and comes after it takes some too. */
const within = (share: number, seconds: number) => ["--minutes", Math.max(0.01, share * seconds / 60).toFixed(2)];

/** Tests in a folder, as many as fit into the time; of the quick ones a file. */
function tests(name: string, what: string, weight: number, folder: string, file: string): Part {
  return {
    ...{ name, what, weight, needs: "deno", numbers: testCounts },
    command: ({ quick }) => [process.execPath, "test", "-A", "--no-check", quick ? file : folder],
  };
}

/** Times of the kernels of some operations. */
function kernels(name: string, what: string, weight: number, of: keyof typeof apart, mixed = false): Part {
  return {
    ...{ name, what, weight },
    ...mixed ? { needs: "f16" } : {},
    command({ quick, json, seconds }) {
      const { model, samples } = quick ? { model: tiny[of], samples: 1 } : real[of];
      return bench(
        ...["kernels", "--operations", (quick ? apart[of].slice(0, 1) : apart[of]).join(","), "--model", model],
        ...["--samples", String(samples), "--repeats", quick ? "1" : "7", "--json", json],
        ...[...mixed ? ["--precision", "mixed"] : [], ...within(0.6, seconds)],
      );
    },
  };
}

/** Steps without and with 2BP. */
function throughput(name: string, what: string, weight: number, schedules: string[], ...flags: string[]): Part {
  return {
    ...{ name, what, weight },
    command: ({ quick, json }) =>
      bench(
        ...["throughput", "--virtual", "--devices", "4", "--json", json, ...flags],
        ...quick
          ? ["--model", "llama-tiny", "--schedules", "1f1b-1", "--repeats", "1", "--samples", "1"]
          : ["--model", "llama-small", "--schedules", schedules.join(","), "--repeats", "9", "--samples", "16"],
      ),
  };
}

/** The paper's transformer. */
function paper(name: string, what: string, weight: number, parts: string): Part {
  return {
    ...{ name, what, weight },
    // Compiling, and the fewest steps where they take longer, come on top of its own minutes.
    command: ({ quick, json, seconds }) =>
      bench(
        ...["paper", "--models", "paper-transformer-16", "--parts", parts, "--json", json, ...within(0.6, seconds)],
        ...quick
          ? ["--schedules", "1f1b-1", "--size", "twin", "--steps", "1", "--repeats", "1"]
          : ["--schedules", "1f1b-1,1f1b-2"],
      ),
  };
}

/** Names of all operations that have no part of their own, for `--operations`. */
function others(): readonly string[] {
  const taken = new Set<string>(Object.values(apart).flat());
  return operations().map(({ name }) => name).filter((name) => !taken.has(name));
}

/** All parts, in the order in which they run. */
export function allParts(): readonly Part[] {
  const rest = others();
  return [
    {
      name: "doctor",
      what: "whether training runs here, drivers, rates",
      weight: 110, // it stops by itself, after half a minute of kernels
      command: ({ quick, json }) => script("lib/cli/doctor.ts", "--json", json, ...quick ? ["--quick"] : []),
    },
    tests("ops", "tests of operations on this device", 60, "tests/ops", "tests/ops/look.test.ts"),
    tests("layers", "tests of layers on this device", 40, "tests/layers", "tests/layers/bert.test.ts"),
    kernels("products", "products of matrices, f32", 40, "products"),
    kernels("half", "products of matrices, f16", 40, "products", true),
    kernels("attention", "attention", 40, "attention"),
    kernels("scans", "scans and causal convolutions of a Mamba", 40, "scans"),
    kernels("convolutions", "convolutions of a ResNet", 40, "convolutions"),
    {
      name: "kernels",
      what: "all other operations",
      weight: 50,
      command: ({ quick, json, seconds }) =>
        bench(
          ...["kernels", "--operations", (quick ? ["rmsNorm", "swiglu"] : rest).join(","), "--json", json],
          ...within(0.6, seconds),
          ...["--samples", quick ? "1" : "4", "--repeats", quick ? "1" : "5"],
        ),
    },
    throughput("throughput", "gain of 2BP on four virtual devices", 80, ["naive", "gpipe", "1f1b-1", "1f1b-2", "zb-v"]),
    throughput("calibrated", "the same with kernels chosen by measuring", 60, ["1f1b-1"], "--calibrate"),
    paper("paper", "the paper's transformer, in the largest size that fits", 90, "throughput,memory"),
    paper("ablation", "where the gain of the paper's transformer comes from", 70, "ablation"),
    {
      name: "peers",
      what: "products and a GPT's training step, beside other libraries where they are installed",
      weight: 30,
      command: ({ quick, json }) =>
        bench(
          ...["peers", "--sizes", sizes(quick), "--repeats", quick ? "2" : "11", "--json", json],
          ...isFilled(`${root}bench/peers/node_modules`) ? [] : ["--alone"],
        ),
    },
    {
      name: "torch",
      what: "the same in PyTorch",
      weight: 30,
      needs: "python",
      command: ({ quick, python }) => [
        ...[python!, `${root}bench/peers/torch.py`, "--best", "--half"],
        ...["--sizes", sizes(quick), "--repeats", quick ? "2" : "11"],
      ],
      numbers: (stdout) => JSON.parse(stdout),
    },
  ];
}

function isFilled(folder: string): boolean {
  return existsSync(folder) && readdirSync(folder).length > 0;
}
