/** Traces of a pipeline run, read into a profile. */
import { UserError } from "../../errors.ts";
import { expectFields, optional, type Rules, whole } from "../../rules.ts";
import { lower } from "../../schedules/program.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { shown } from "../../text.ts";
import { collector } from "./collect.ts";
import { readEvents } from "./json_stream.ts";
import { inOrder, matched, oneSource } from "./pipeline.ts";
import type { Profile } from "./profile.ts";
import { ourRanks, type RankTrace, torchRank } from "./rank_trace.ts";
import { nameSchedule } from "./recognize.ts";
import { nameOf, openSource, type TraceSource } from "./source.ts";
import { alignedSteps } from "./align.ts";
import { profileOf } from "./summary.ts";
import { readTable, tableProfile } from "./table.ts";

/** How to read traces. */
export interface FromTraceOptions {
  /**
   * How many steps at the beginning are a warm-up and left out. Default: those that take more than one and a half times as long as the
   * median of the steps after them, the last but one at most.
   */
  readonly warmup?: number;
}

const rules: Rules<FromTraceOptions> = { warmup: optional(whole(0)) };

/**
 * Reads what a pipeline run left behind: which schedule ran, and what its actions, messages and ends of steps took, waits taken out.
 *
 * - Traces of PyTorch's profiler (`export_chrome_trace`), plain or gzip, a file for each rank, of a run of
 *   `torch.distributed.pipelining` whose runtime names its actions (`PP:0F3`): a schedule from a CSV, or a class of several stages.
 *   Files are read as they come, so that one of gigabytes takes little memory.
 * - A trace of this project (`chromeTrace`), all ranks in one file.
 * - A table of times: CSV with the columns `stage`, `kind` and `ms` or `us` (and perhaps `rank` and `width`), JSON rows
 *   `[stage, kind, microseconds]`, or the JSON of `deno task schedule import`.
 *
 * A trace of PyTorch has an action begin when it is called, its wait for a message included. When it began to work is: on a GPU when its
 * first kernel ran; else when its first operation ran; without operations when its message was there, or, where the trace does not say
 * that either, when the action that made it had ended on the other rank.
 *
 * @param sources Paths, or texts with a name for messages. One for each rank.
 * @throws {UserError} For a file that is not there, damaged, cut off or of another kind; for two traces of one rank, and for missing ones.
 *
 * @example
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { fromTrace } from "twobp/measure";
 * import { chromeTrace } from "twobp/report";
 * import { unitCosts } from "twobp/schedules";
 *
 * const schedule = generate("1f1b-1", { devices: 2 });
 * const text = chromeTrace(schedule, simulate(schedule, unitCosts({ f: 2, i: 3, w: 1 })));
 * const profile = await fromTrace([{ name: "mine", text }]);
 * console.log(profile.schedule?.name, profile.stages[1].b?.median); // 1f1b-1 4
 * ```
 */
export async function fromTrace(sources: readonly TraceSource[], options: FromTraceOptions = {}): Promise<Profile> {
  expectFields("fromTrace", options, rules);
  if (!Array.isArray(sources) || sources.length === 0) {
    throw new UserError("fromTrace takes a list of files, or texts with names, one for each rank");
  }
  sources.forEach((source, at) => {
    const path = typeof source === "string" ? source : source?.name;
    if (typeof path !== "string" || typeof source !== "string" && typeof source?.text !== "string") {
      throw new UserError(`Source ${at} of fromTrace is neither a path nor { name, text }`);
    }
    if (typeof source === "string" && sources.indexOf(source) < at) {
      throw new UserError(`${nameOf(source)} is given twice; give the trace of each rank once`);
    }
  });
  const read: (RankTraces | Table)[] = [];
  for (const source of sources) read.push(await readSource(source));
  const tables = read.filter((each): each is Table => "table" in each);
  if (tables.length > 0) {
    if (read.length > 1) {
      throw new UserError(`${tables[0].file} is a table of times, which stands for all ranks; give it alone`);
    }
    return tableProfile(tables[0].table);
  }
  const traces = read as RankTraces[];
  oneSource(traces);
  if (traces[0].source === "twobp" && traces.length > 1) {
    throw new UserError(`${traces[0].file} has all ranks in one file; give one such file`);
  }
  const ranks = inOrder(traces.flatMap(({ ranks }) => ranks));
  const { order, steps, dropped } = matched(ranks);
  const schedule = scheduleOf(order);
  const aligned = alignedSteps(ranks, steps, schedule);
  return profileOf(traces[0].source, ranks, schedule, aligned, dropped, options.warmup);
}

interface RankTraces {
  readonly file: string;
  readonly source: "torch" | "twobp";
  readonly ranks: RankTrace[];
}

interface Table {
  readonly file: string;
  readonly table: ReturnType<typeof readTable>;
}

/** Reads a source; what is wrong in it says in which. */
async function readSource(source: TraceSource): Promise<RankTraces | Table> {
  const file = nameOf(source), { collected, take } = collector();
  try {
    const chunks = openSource(source)[Symbol.asyncIterator]();
    const first = await chunks.next();
    if (first.done || first.value.length === 0) throw new UserError("it is empty");
    const all = async function* () {
      yield first.value;
      yield* { [Symbol.asyncIterator]: () => chunks };
    };
    if (!/^(\ufeff|\xef\xbb\xbf)?\s*[[{]/.test(String.fromCharCode(...first.value.subarray(0, 1024)))) {
      return { file, table: readTable(await textOf(all())) };
    }
    const { header, hasEvents } = await readEvents(all(), take);
    if (collected.annotations.length > 0) {
      if (!collected.annotations.some(({ actions }) => actions.length > 0)) {
        throw new UserError("it has transfers of a pipeline and no F, I, W or B");
      }
      return { file, source: "torch", ranks: [torchRank({ file, header }, collected)] };
    }
    if (collected.ours.size > 0) return { file, source: "twobp", ranks: ourRanks({ file, header }, collected) };
    if (collected.events === 0 && collected.rows.length > 0) return { file, table: readTable(collected.rows) };
    if (!hasEvents) return { file, table: readTable(header) };
    throw new UserError(foreign(collected.events, collected.hasPlainForward));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    // Some already begin with the file, or are about it as such.
    throw error.message.includes(file) ? error : new UserError(`${file}: ${error.message}`, { cause: error });
  }
}

function foreign(events: number, hasPlainForward: boolean): string {
  if (events === 0) return "its list of events is empty; export the trace after the profiler has stopped";
  const remedy =
    "run the schedule from a CSV file (_PipelineScheduleRuntime and _load_csv, see docs/pytorch.md), or give " +
    "a table of times, stage,kind,ms";
  return hasPlainForward
    ? `it is of a schedule class of one stage a rank, which does not name its actions; ${remedy}`
    : `none of its ${events} events is an action of a pipeline (PP:0F0). PyTorch's classes of one stage a rank, such as ` +
      `Schedule1F1B, and Megatron write none; ${remedy}`;
}

const mostText = 64 * 2 ** 20;

async function textOf(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  try {
    for await (const chunk of chunks) {
      text += decoder.decode(chunk, { stream: true });
      if (text.length > mostText) throw new UserError("no JSON, and too large for a table of times");
    }
    return text + decoder.decode();
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError("neither JSON nor text, so neither a trace nor a table of times", { cause: error });
  }
}

/**
 * The schedule that ran.
 *
 * @throws {UserError} Where the actions are no whole schedule, as when the profiler began or ended within a step.
 */
function scheduleOf(order: Schedule["actions"]): Schedule {
  const placement: number[] = [];
  order.forEach((list, rank) => list.forEach(({ stage }) => placement[stage] = rank));
  const schedule: Schedule = { name: "traced", placement, actions: order };
  try {
    lower(schedule);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`The traces do not make a whole schedule: ${shown(error.message, 600)}`, { cause: error });
  }
  return nameSchedule(schedule);
}
