/** Written by `deno task bench agreement --keep`, out of bench/results/agreement-*.json: run that again, and edit nothing here. */
import type { KeptErrors } from "./prediction_errors.ts";

/** How far predictions were off in the runs that are kept. */
export const keptErrors: readonly KeptErrors[] = [
  {
    mode: "real",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.252, within: 0.522, cases: 112 },
    gain: { median: 0.0409, within: 0.515, cases: 56 },
    counted: { median: -0.286, within: 0.779, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.139, within: 0.436, cases: 112 },
    gain: { median: 0.0405, within: 0.854, cases: 56 },
    counted: { median: -0.00276, within: 0.864, cases: 76 },
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
