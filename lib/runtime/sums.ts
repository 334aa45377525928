/** Where the sums that only W reads are made, stage by stage. */
import { type Sums, sumsMakers } from "../layers/sums.ts";
import { expectValue, listOf, oneOf } from "../rules.ts";

/** Who makes the sums that only W reads: the same on all stages, or of each stage its own. */
export type SumsPolicy = Sums | readonly Sums[];

const maker = oneOf(sumsMakers);

/**
 * Who makes the sums of each stage.
 *
 * @throws {UserError} When a maker is unknown, or there are makers for another number of stages.
 */
export function sumsOf(policy: SumsPolicy = "i", stages: number): readonly Sums[] {
  const right = `${maker.right}, or a list of ${stages} of these, one for each stage`;
  const each = listOf(maker, stages);
  expectValue("Who makes the sums", policy, {
    right,
    accepts: (value) => maker.accepts(value) || each.accepts(value),
  });
  return typeof policy === "string" ? Array.from({ length: stages }, () => policy) : [...policy];
}

/**
 * Reads what a command line says of who makes the sums.
 *
 * @throws {UserError} For anything but `i`, `w`, and one of these for each stage as in `i/w`.
 */
export function parseSums(text: string): SumsPolicy {
  const makers = text.split("/");
  expectValue("Who makes the sums", text, {
    right: `${maker.right}, or one of these for each stage, as in "i/w"`,
    accepts: () => makers.every((each) => maker.accepts(each)),
  });
  return makers.length === 1 ? makers[0] as Sums : makers as Sums[];
}

/** The policy in a word, for tables: "w", or by stage "i/w". */
export function formatSums(policy: SumsPolicy = "i"): string {
  return typeof policy === "string" ? policy : policy.join("/");
}
