/** Written by `deno task bench agreement --keep`, out of bench/results/agreement-*.json: run that again, and edit nothing here. */
import type { KeptErrors } from "./prediction_errors.ts";

/** How far predictions were off in the runs that are kept. */
export const keptErrors: readonly KeptErrors[] = [
  {
    mode: "real",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.157, within: 0.266, cases: 112 },
    gain: { median: 0.0303, within: 0.128, cases: 56 },
    counted: { median: -0.0162, within: 0.221, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 2,
    driver: "llvmpipe",
    step: { median: -0.0403, within: 0.114, cases: 112 },
    gain: { median: 0.00303, within: 0.108, cases: 56 },
    counted: { median: 0.00252, within: 0.299, cases: 76 },
  },
  {
    mode: "virtual",
    devices: 4,
    driver: "llvmpipe",
    step: { median: -0.0436, within: 0.116, cases: 98 },
    gain: { median: 0.0321, within: 0.176, cases: 49 },
    counted: { median: -0.0145, within: 0.201, cases: 64 },
  },
];
