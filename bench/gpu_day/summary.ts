/** A GPU day as one page of Markdown, made of the files that its parts left in its folder. */
import { type Diagnosis, type KernelsReport, median, type PaperReport, type ThroughputReport } from "twobp/measure";
import {
  ablationNotes,
  ablationTable,
  ablationTitle,
  gainTable,
  kernelsNotes,
  kernelsTable,
  kernelsTitle,
  paperCitation,
  paperMemoryTable,
  paperNotes,
  paperTimesTable,
  paperTitle,
  type Table,
  tableMarkdown,
  throughputNotes,
  throughputTable,
  throughputTitle,
} from "twobp/report";
import { machineText } from "../../lib/measure/machine.ts";
import type { Found } from "./found.ts";
import { type GpuDay, isFaulty, type Outcome } from "./outcome.ts";
import { whatNext } from "./next.ts";

/** The page. `what` says of a part by its name what it does. */
export function summary(day: GpuDay, found: Found, what: (name: string) => string): string {
  const blocks = [
    "# GPU day",
    `${day.command}; ${machineText(day.machine)}.`,
    verdict(day, found),
    ...section("What ran", [tableMarkdown(partsTable(day.parts, found, what))]),
    ...section(
      "What failed, and why",
      day.parts.filter(isFaulty).map(({ name, reason }) => `- ${name}: ${text(reason)}`),
    ),
    ...section("The device", deviceBlocks(found.doctor)),
    ...section("Tests", testBlocks(found.tests)),
    ...section("Share of the peak", shareBlocks(found)),
    ...[...found.kernels].flatMap(([name, report]) => section(capital(what(name)), kernelBlocks(report))),
    ...section("Throughput", throughputBlocks(found.throughput)),
    ...section("Throughput with measured kernels", [
      ...throughputBlocks(found.calibrated).slice(0, 3), // its notes are those above
      ...calibrationBlocks(found),
    ]),
    ...section("The paper", paperBlocks(found.paper)),
    ...section("Where the gain comes from", paperBlocks(found.ablation)),
    ...found.paper ?? found.ablation ? [text(paperCitation)] : [],
    ...section("Beside PyTorch and other libraries", besideBlocks(found)),
    ...section("What to do next", whatNext(day, found).map((each) => `- ${text(each)}`)),
  ];
  return `${joined(blocks)}\n`;
}

/** A heading with what stands below it, or nothing where that is nothing. */
function section(heading: string, blocks: readonly string[]): string[] {
  return blocks.length > 0 ? [`## ${heading}`, ...blocks] : [];
}

/** Paragraphs, with the items of a list close together. */
function joined(blocks: readonly string[]): string {
  return blocks.map((block, at) => {
    const isItem = (each = "") => each.startsWith("- ");
    return `${block.trimEnd()}${
      at === blocks.length - 1 ? "" : isItem(block) && isItem(blocks[at + 1]) ? "\n" : "\n\n"
    }`;
  }).join("");
}

function verdict({ parts, quick, minutes }: GpuDay, { doctor }: Found): string {
  const of = (status: Outcome["status"]) => parts.filter((part) => part.status === status).map(({ name }) => name);
  const seconds = parts.reduce((sum, part) => sum + part.seconds, 0);
  const others = (["failed", "out of time", "skipped"] as const).flatMap((status) =>
    of(status).length > 0 ? [`${status}: ${of(status).join(", ")}`] : []
  );
  return [
    `${of("done").length} of ${parts.length} parts are done, in ${duration(seconds)} of ${duration(60 * minutes)}` +
    `${others.length > 0 ? `; ${others.join("; ")}` : ""}.`,
    ...quick ? ["Sizes are those of --quick: they show whether it runs, and no speed."] : [],
    ...doctor?.devices?.software ? ["The devices are computed on the processor: these are no numbers of a GPU."] : [],
  ].join(" ");
}

function partsTable(parts: readonly Outcome[], { kernels }: Found, what: (name: string) => string): Table {
  const left = (name: string) => {
    const { left = 0 } = kernels.get(name) ?? {};
    return left > 0 ? `no time for ${left} problems` : "";
  };
  return {
    columns: ["part", "what", "came out", "s", "of at most s", "why"],
    rows: parts.map(({ name, status, seconds, limit, reason = left(name) }) => [
      ...[name, what(name), status, seconds.toFixed(1), limit, reason],
    ]),
  };
}

function deviceBlocks(doctor?: Diagnosis): string[] {
  if (!doctor) return [];
  const { devices, rates, passing, kernels, works, problem } = doctor;
  const rows: [string, string][] = [["a training step runs and is right", yes(works)]];
  if (problem !== undefined) rows.push(["problem", problem]);
  if (devices) {
    const { adapter, driver, implementation, version, mode, f16, timestamps, subgroupSize } = devices;
    rows.push(
      ...[["device", adapter], ["driver", driver], ["WebGPU", `${implementation} ${version}`]] as [string, string][],
      ...[["two devices", mode], ["f16", yes(f16)], ["timestamps", yes(timestamps)]] as [string, string][],
      ["subgroups", subgroupSize > 0 ? String(subgroupSize) : "no fixed size"],
    );
  }
  if (rates) {
    const { gflops, gigabytes, side, product, halfProduct } = rates;
    rows.push(
      ["peak", `${short(gflops)} GFLOP/s (f32 in registers), ${short(gigabytes)} GB/s (a copy of 64 MiB)`],
      [
        `product of ${side} x ${side}, by the rule`,
        `${short(product)} GFLOP/s, ${percent(product / gflops)} of the peak`,
      ],
    );
    if (halfProduct) {
      rows.push(["the same in f16", `${short(halfProduct)} GFLOP/s, ${percent(halfProduct / gflops)} of the f32 peak`]);
    }
  }
  if (passing) {
    rows.push([
      "message",
      `${short(passing.message)} ms for ${passing.bytes / 2 ** 20} MiB, ${short(passing.smallMessage)} ms small`,
    ]);
  }
  if (kernels) {
    const { checked, left, faults } = kernels;
    rows.push([
      "kernels compared with their references",
      `${checked}, of which ${faults.length} are wrong; ${left} left out`,
    ]);
  }
  return [tableMarkdown({ columns: ["doctor", "found"], rows })];
}

function testBlocks(tests: Found["tests"]): string[] {
  return [...tests].flatMap(([name, { passed, failed, ignored, failures, complete }]) => [
    `${name}: ${passed} passed, ${failed} failed, ${ignored} ignored${complete ? "" : ", until the time was over"}.`,
    ...failures.map((name) => `- ${text(name)}`),
  ]);
}

/** How near the kernels of each part come to what the device does at best. */
function shareBlocks({ kernels }: Found): string[] {
  if (kernels.size === 0) return [];
  const rows = [...kernels].flatMap(([name, { rows, peak }]) =>
    (["GFLOP/s", "GB/s"] as const).flatMap((unit) => {
      const chosen = rows.filter((row) => row.chosen && row.unit === unit)
        .sort((a, b) => b.shareOfPeak - a.shareOfPeak);
      if (chosen.length === 0) return [];
      const best = chosen[0], worst = chosen[chosen.length - 1];
      const at = ({ operation, shareOfPeak }: typeof best) => `${percent(shareOfPeak)} (${operation})`;
      return [[
        ...[name, chosen.length, `${short(unit === "GB/s" ? peak.gigabytes : peak.gflops)} ${unit}`],
        ...[percent(median(chosen.map(({ shareOfPeak }) => shareOfPeak))), at(best), at(worst)],
      ]];
    })
  );
  return [
    tableMarkdown({ columns: ["part", "problems", "peak", "median", "most", "least"], rows }),
    "Of the kernel that measuring chooses, for each problem. The peak is f32 in registers, or a copy of 64 MiB, measured in the " +
    "same part; more than 100 % where data stay in caches, or matrix units help.",
  ];
}

/** Of each problem the kernel that measuring chooses. */
function kernelBlocks(report: KernelsReport): string[] {
  const rows = report.rows.filter(({ chosen }) => chosen).sort((a, b) => a.operation.localeCompare(b.operation));
  return [
    `${text(kernelsTitle(report))}. Of each problem the kernel that measuring chooses:`,
    tableMarkdown(kernelsTable({ ...report, rows })),
    ...kernelsNotes(report).map(text),
  ];
}

function throughputBlocks(report?: ThroughputReport): string[] {
  if (!report) return [];
  const tables = [throughputTable(report), gainTable(report)];
  return [
    text(throughputTitle(report)),
    ...tables.map((each) => tableMarkdown(each)),
    ...throughputNotes(report).map(text),
  ];
}

/** What measured kernels bring, schedule by schedule. */
function calibrationBlocks({ throughput, calibrated }: Found): string[] {
  const rows = (calibrated?.rows ?? []).flatMap((row) => {
    const before = throughput?.rows.find((each) => each.schedule === row.schedule && each.twoStage === row.twoStage);
    if (!before) return [];
    const [rule, measured] = [before, row].map(({ stepMs }) => stepMs.median);
    return [[row.schedule, yes(row.twoStage), short(rule), short(measured), (rule / measured).toFixed(2)]];
  });
  if (rows.length === 0) return [];
  const columns = ["schedule", "2BP", "by the rule, ms", "measured kernels, ms", "times as fast"];
  return [tableMarkdown({ columns, rows, notes: ["Step times of two runs, one after the other."] })];
}

function paperBlocks(report?: PaperReport): string[] {
  return (report?.models ?? []).flatMap((model) => [
    text(paperTitle(model)),
    ...model.throughput ? [tableMarkdown(paperTimesTable(model))] : [],
    ...model.peaks ?? model.paperPeaks ? [tableMarkdown(paperMemoryTable(model))] : [],
    ...(model.ablation ?? []).flatMap((each) => [
      text(`${ablationTitle(each)}.`),
      tableMarkdown(ablationTable(each)),
      ...ablationNotes(each).map(text),
    ]),
    ...paperNotes(model).map(text),
  ]);
}

/** Every job of `bench peers` and of torch.py, with how much longer than this project it took. */
function besideBlocks({ peers, torch, kernels }: Found): string[] {
  const own = peers?.rows.filter(({ contender }) => contender === "twobp") ?? [];
  // Of squares of "products" and "half" the products of two plain matrices, by the device's clock.
  const square = (part: string, start: string) =>
    kernels.get(part)?.rows.find(({ operation, shape, chosen }) =>
      operation === "matmul" && chosen && shape.startsWith(start)
    )?.ms;
  const ownMs = (job: string) => {
    const [, size, half] = /^matmul (\S+)( f16)?$/.exec(job) ?? [];
    if (half) return square("half", `${size} NN f16 f16 `);
    return own.find((row) => row.job === job)?.ms?.median ?? square("products", `${size} NN f32 f32 `);
  };
  const rows = [...peers?.rows ?? [], ...torch?.rows ?? []];
  if (rows.length === 0) return [];
  return [
    tableMarkdown({
      columns: ["job", "who", "ms", "GFLOP/s", "over twobp"],
      rows: rows.map(({ job, contender, ms, gflops, error }) => {
        const before = ownMs(job);
        return [
          ...[job, contender, ms ? short(ms.median) : error ?? "-", gflops ? short(gflops) : "-"],
          ms && before && contender !== "twobp" ? (ms.median / before).toFixed(2) : "-",
        ];
      }),
    }),
    "Over twobp: its time by that of this project, more than 1 where this project is faster. Not interleaved: PyTorch runs after it.",
  ];
}

/** A sentence as Markdown that says nothing else. */
const text = (sentence = "") => sentence.replace(/[\\`*_<>|~[\]]/g, "\\$&");
const capital = (words: string) => words[0].toUpperCase() + words.slice(1);
const yes = (is: boolean) => is ? "yes" : "no";
const short = (value: number) => String(Number(value.toPrecision(3)));
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
const duration = (seconds: number) => seconds < 100 ? `${short(seconds)} s` : `${short(seconds / 60)} minutes`;
