/** plotly's source, to be part of a page or to run in jsdom. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cannotLoad } from "../optional.ts";

/**
 * plotly as one script.
 *
 * @throws {UserError} Where the package is not installed.
 */
export function plotlySource(): string {
  try {
    return readFileSync(createRequire(import.meta.url).resolve("plotly.js-dist-min"), "utf8");
  } catch (error) {
    throw cannotLoad("plotly.js-dist-min", "Figures are drawn by", error);
  }
}
