/**
 * What there is to say about a traced run: tables in the terminal and on pages, and the JSON that is a cluster file.
 *
 * @module
 */
import { clusterOf } from "../measure/profile/cluster.ts";
import type { ActionTimes, Profile } from "../measure/profile/profile.ts";
import { median, quartiles } from "../measure/statistics.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { formatAction } from "../schedules/schedule.ts";
import type { Section, Table } from "./html.ts";
import { variantOf } from "./variant.ts";

const time = (value: number) => value < 0.0005 ? "0" : value.toFixed(value < 10 ? 3 : value < 100 ? 2 : 1);
const range = (times: ActionTimes) => times.quartiles.map(time).join(" to ");

/** One line: which schedule ran, on how many ranks, in how many steps. */
export function profileTitle({ schedule, ranks, stages, steps }: Profile): string {
  if (!schedule) return `Times of ${stages.length} stages on ${ranks} ranks`;
  const { microbatches } = sizesOf(schedule);
  const variant = schedule.name === "traced" ? "A schedule that is none of the zoo's" : variantOf(schedule);
  return `${variant} on ${ranks} ranks, ${stages.length} stages, ${microbatches} micro-batches, ` +
    `${steps.length} step${steps.length === 1 ? "" : "s"} (traced)`;
}

/** What each stage takes, waits taken out. */
export function profileTable({ stages, notes, steps, dropped }: Profile): Table {
  const rows = stages.flatMap(({ stage, f, i, w, b }) => {
    const kinds: [string, ActionTimes | undefined][] = [["F", f], ["I", i]];
    for (const [width, times] of Object.entries(w ?? {})) kinds.push([width === "1" ? "W" : `W of ${width}`, times]);
    kinds.push(["B", b]);
    return kinds.flatMap(([kind, times]) =>
      times ? [[stage, kind, time(times.median), range(times), times.samples.length, outlierText(times)]] : []
    );
  });
  const lengths = steps.map(({ length }) => length);
  const said = lengths.length === 0 ? [] : [
    `A step takes ${time(median(lengths))} ms, ${
      quartiles(lengths).map(time).join(" to ")
    } in the middle half of ${lengths.length}.`,
  ];
  return {
    columns: ["stage", "action", "ms", "middle half", "times", "outliers"],
    rows,
    notes: [...said, ...dropped.map(({ name, why }) => `Left out: ${name}, ${why}.`), ...notes],
  };
}

function outlierText({ outliers }: ActionTimes): string {
  if (outliers.length === 0) return "-";
  const shown = outliers.slice(0, 3).map(time).join(" / ");
  return outliers.length > 3 ? `${shown} and ${outliers.length - 3} more` : shown;
}

/** What messages take that somebody waited for. */
export function messageTable({ messages }: Profile): Table {
  return {
    columns: ["from", "to", "message", "ms", "middle half", "times", "outliers"],
    rows: messages.map(({ from, to, what, time: times }) => [
      from,
      to,
      what === "F" ? "activation" : "gradient",
      time(times.median),
      range(times),
      times.samples.length,
      outlierText(times),
    ]),
  };
}

/** By rank: how long it computes and waits in a step, what its host takes, its end, its clock. */
export function rankTable({ ranks, steps, hosts, tails, clocks }: Profile): Table {
  const rows = Array.from({ length: ranks }, (_, rank) => {
    const computing = steps.map((step) => step.ranks[rank].reduce((sum, { began, end }) => sum + end - began, 0));
    const waiting = steps.map((step) => step.ranks[rank].reduce((sum, { start, began }) => sum + began - start, 0));
    const { ahead, error } = clocks[rank];
    return [
      rank,
      ...(steps.length > 0 ? [time(median(computing)), time(median(waiting))] : []),
      hosts[rank] ? time(hosts[rank].median) : "-",
      tails[rank] ? time(tails[rank].median) : "-",
      ahead === 0 && error === 0 ? "0" : `${ahead.toFixed(3)} ± ${Number.isFinite(error) ? error.toFixed(3) : "?"}`,
    ];
  });
  const own = steps.length > 0 ? ["computes, ms", "waits within actions, ms"] : [];
  return { columns: ["rank", ...own, "between actions, ms", "after the last, ms", "clock ahead, ms"], rows };
}

/** The tables as sections of a page. */
export function profileSections(profile: Profile): Section[] {
  return [
    { heading: "Stages", table: profileTable(profile) },
    ...(profile.messages.length > 0 ? [{ heading: "Messages", table: messageTable(profile) }] : []),
    { heading: "Ranks", table: rankTable(profile) },
  ];
}

/** The project's JSON of a traced run, version 1: medians in milliseconds, and a cluster file for other commands. */
export function profileJson(profile: Profile): Record<string, unknown> {
  const { source, schedule, steps, clocks, dropped, notes } = profile;
  const { ranks, stages, ...rest } = clusterOf(profile);
  return {
    schema: 1,
    source,
    ranks,
    steps: steps.length,
    lengths: steps.map(({ length }) => Number(length.toFixed(6))),
    schedule: schedule ? variantOf(schedule) : null,
    stages: stages.map((each, stage) => ({ stage, ...each })),
    ...rest,
    clocks: clocks.map(({ ahead, error }) => ({ ahead, error: Number.isFinite(error) ? error : null })),
    dropped,
    notes,
    ...(schedule && { placement: schedule.placement, actions: schedule.actions.map((list) => list.map(formatAction)) }),
  };
}
