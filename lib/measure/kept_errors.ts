/** Written by `deno task bench agreement --keep`, out of bench/results/agreement-*.json: run that again, and edit nothing here. */
import type { KeptErrors } from "./prediction_errors.ts";

/** How far predictions were off in the runs that are kept. */
export const keptErrors: readonly KeptErrors[] = [
  {
    mode: "real",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.254, within: 0.528, cases: 112 },
    gain: { median: 0.0606, within: 0.58, cases: 56 },
    counted: { median: 0.113, within: 1.52, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.135, within: 0.415, cases: 112 },
    gain: { median: -0.0206, within: 0.613, cases: 56 },
    counted: { median: 0.303, within: 2.47, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 4,
    driver: "llvmpipe",
    step: { median: -0.206, within: 0.525, cases: 98 },
    gain: { median: 0.0487, within: 0.778, cases: 49 },
    counted: { median: -0.0294, within: 0.536, cases: 64 },
  },
];
