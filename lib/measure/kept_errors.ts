/** Written by `deno task bench agreement --keep`, out of bench/results/agreement-*.json: run that again, and edit nothing here. */
import type { KeptErrors } from "./prediction_errors.ts";

/** How far predictions were off in the runs that are kept. */
export const keptErrors: readonly KeptErrors[] = [];
