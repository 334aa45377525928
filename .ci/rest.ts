/**
 * What `.ci/run` runs behind the tests. Names as arguments run these jobs alone: `.ci/rest.ts docs jupyter`.
 */
import process from "node:process";
import { chosenOf, type Job, runJobs, sorted, taskOf } from "./jobs.ts";

const bundled = "TWOBP_DRIVER=bundled deno test -A --no-check";
/**
 * What another driver can break: opening and closing it, and the kernels, which each layer here compares with a float64 reference.
 * The rest of these folders is about what happens in JavaScript, whatever the driver.
 */
const ofDriver = [
  ...["cache_folder", "closing", "kernel", "opening", "parameters", "poll"].map((name) => `tests/gpu/${name}.test.ts`),
  ...["bert", "images", "layers", "lora", "mamba"].map((name) => `tests/layers/${name}.test.ts`),
  "tests/runtime/reference.test.ts",
];

/** What another implementation of WebGPU can break: what its compiler makes of the kernels, and a step against float64. */
const inDeno = ["tests/gpu/deno_webgpu.test.ts", "tests/runtime/reference.test.ts"];

/** In Deno `tests/bench/throughput.test.ts` runs it, and looks at what comes of it. */
const small = "--repeats 3 --samples 1 --schedules naive,1f1b-1";
const after = "check"; // they put files into the tree for a while, which it is not to see
const jobs: readonly Job[] = [
  { name: "check", command: taskOf("check") },
  { name: "bundled driver", command: `${bundled} ${ofDriver.join(" ")}` },
  { name: "Deno's own WebGPU", command: `TWOBP_WEBGPU=deno deno test -A --no-check ${inDeno.join(" ")}` },
  { name: "headless Chromium", command: "deno run -A --no-check .ci/browser.ts" },
  { name: "examples of README, docs, docstrings and examples", command: "deno run -A .ci/examples.ts", after },
  { name: "docs", command: taskOf("docs"), after },
  { name: "notebooks", command: `TWOBP_SCALE=quick ${taskOf("notebooks")}` },
  { name: "cells of the notebooks in Deno", command: "deno run -A --no-check .ci/cells.ts", after },
  { name: "jupyter", command: ".ci/jupyter" },
  // A tenth of what is opened and closed all day.
  { name: "endurance, Deno", command: "deno run -A --no-check .ci/endurance.ts 0.1" },
  { name: "endurance, Node", command: "npx -y tsx@4.23.15 .ci/endurance.ts 0.1" },
  { name: "the package in projects of other people", command: "deno run -A --no-check .ci/consumer.ts" },
  { name: "timed tests, bundled driver", command: `${bundled} tests/gpu/devices.test.ts`, alone: true },
  { name: "small bench, Bun", command: `npx -y bun@1.4.5 bench/throughput.ts ${small}`, alone: true },
  { name: "small bench, Node", command: `npx -y tsx@4.23.15 bench/main.ts ${small}`, alone: true },
];

const longest = [
  ...["check", "notebooks", "examples of README, docs, docstrings and examples"],
  ...["the package in projects of other people", "bundled driver", "headless Chromium"],
];
const results = await runJobs(chosenOf(sorted(jobs, longest), process.argv.slice(2)));
process.exit(results.some(({ failed }) => failed) ? 1 : 0);
