/** Written by `deno task bench agreement --keep`, out of bench/results/agreement-*.json: run that again, and edit nothing here. */
import type { KeptErrors } from "./prediction_errors.ts";

/** How far predictions were off in the runs that are kept. */
export const keptErrors: readonly KeptErrors[] = [
  {
    mode: "real",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.255, within: 0.528, cases: 112 },
    gain: { median: 0.0222, within: 0.453, cases: 56 },
    counted: { median: 0.0459, within: 1.65, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.132, within: 0.42, cases: 112 },
    gain: { median: -0.0745, within: 0.429, cases: 56 },
    counted: { median: 0.195, within: 2.47, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 4,
    driver: "llvmpipe",
    step: { median: -0.298, within: 0.604, cases: 98 },
    gain: { median: -0.0405, within: 0.74, cases: 49 },
    counted: { median: -0.187, within: 0.611, cases: 64 },
  },
];
