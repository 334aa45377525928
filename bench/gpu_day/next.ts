/** What follows from a GPU day: what to repeat, to mend, to look at. */
import type { KernelRow, KernelsReport } from "twobp/measure";
import type { Found } from "./found.ts";
import { type GpuDay, isFaulty } from "./outcome.ts";

/** How much faster than the rule's a measured kernel is before it is named. */
const clearly = 1.2;
/** Share of the peak below which a kernel has room. */
const low = 0.2;
/** How many of a kind are named. */
const most = 8;

/** Sentences, what is wrong first. */
export function whatNext({ parts, minutes, quick }: GpuDay, { doctor, tests, kernels, paper }: Found): string[] {
  const again = parts.filter(isFaulty).map(({ name }) => name);
  const left = [...kernels].flatMap(([name, { left }]) => left ? [`${name} (${left})`] : []);
  const reports = [...kernels.values()];
  return [
    ...(doctor?.findings ?? []).map(({ what, remedy }) => `${what} ${remedy}`),
    ...[...tests.values()].some(({ failed }) => failed > 0)
      ? ["Mend what the failing tests show before any number is believed."]
      : [],
    ...reports.flatMap(({ dropped }) => dropped).map(({ operation, shape, candidate, reason }) =>
      `The kernel ${candidate} of ${operation} (${shape}) was dropped: ${reason}.`
    ),
    ...again.length > 0
      ? [
        `Run again what is missing: deno task bench gpu --parts ${again.join(",")} --minutes ${minutes}${
          quick ? " --quick" : ""
        } --out AGAIN.`,
      ]
      : [],
    ...left.length > 0 && !quick
      ? [`More --minutes, or these --parts alone, for problems left out: ${left.join(", ")}.`]
      : [],
    ...quick ? [] : [...slowRules(reports), ...room(reports)], // times of quick sizes say nothing
    ...(paper?.models ?? []).flatMap(({ paper, model }) =>
      model.name === paper || quick
        ? []
        : [`${paper} did not fit and ${model.name} took its place: more --minutes or memory for it, see The paper.`]
    ),
    ...quick
      ? ["Run it without --quick, where a GPU is."]
      : ["Keep the folder: bench/results has those that tables rest on."],
  ];
}

/** Where the rule should choose what measuring chose. */
function slowRules(reports: readonly KernelsReport[]): string[] {
  const gains = reports.flatMap(({ rows }) =>
    rows.filter(({ chosen, usual }) => chosen && !usual).flatMap((row) => {
      const usual = rows.find((each) => each.usual && each.operation === row.operation && each.shape === row.shape);
      return usual && usual.ms > clearly * row.ms ? [{ row, usual, gain: usual.ms / row.ms }] : [];
    })
  );
  return gains.sort((a, b) => b.gain - a.gain).slice(0, most).map(({ row, usual, gain }) =>
    `The rule takes ${usual.candidate} for ${nameOf(row)}, where ${row.candidate} is ${gain.toFixed(2)} times as fast.`
  );
}

/** Chosen kernels far below the peak, those first that are furthest. */
function room(reports: readonly KernelsReport[]): string[] {
  const slow = reports.flatMap(({ rows }) => rows).filter(({ chosen, shareOfPeak }) => chosen && shareOfPeak < low);
  if (slow.length === 0) return [];
  const named = slow.sort((a, b) => a.shareOfPeak - b.shareOfPeak).slice(0, most).map((row) =>
    `${nameOf(row)} (${(100 * row.shareOfPeak).toFixed(1)} %)`
  );
  return [`${slow.length} problems are below ${100 * low} % of the peak, furthest ${named.join(", ")}.`];
}

const nameOf = ({ operation, shape }: KernelRow) => `${operation} ${shape}`;
