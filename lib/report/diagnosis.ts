/** A diagnosis as a page of text. */
import CliTable from "cli-table3";
import { formatBytes } from "../bytes.ts";
import type { Diagnosis, Finding, KernelsCheck, PassingTimes, Rates } from "../measure/doctor/diagnosis.ts";
import type { FoundAdapter } from "../gpu/survey.ts";
import { escaped } from "../text.ts";

/** Rows of a label and what is said behind it; a row without a label goes on with the one above. */
type Rows = (readonly [label: string, text: string])[];

const labelWidth = 11;

/**
 * What was found, in `width` columns: whether training works, then what there is, then what to know and to do. `diagnose()` shows
 * its use.
 */
export function diagnosisText(diagnosis: Diagnosis, width = 80): string {
  const { works, findings, ms, depth } = diagnosis;
  const faults = findings.filter(({ kind }) => kind === "fault").length;
  const verdict = works
    ? `A training step of a pipeline runs here and is right${faults > 0 ? "; something else is not" : ""}.`
    : "A training step of a pipeline does NOT run here as it should.";
  const advice: Rows = findings.flatMap(({ kind, what, remedy }): Rows => [[kinds[kind], what], ["", `> ${remedy}`]]);
  const end = `${(ms / 1000).toFixed(0)} s${depth === "quick" ? "; kernels and rates were left out (--quick)" : ""}.`;
  return [
    verdict,
    "",
    textOf(facts(diagnosis), width),
    "",
    advice.length > 0 ? textOf(advice, width) : "There is nothing to do.",
    "",
    end,
  ].join("\n");
}

const kinds: Readonly<Record<Finding["kind"], string>> = { fault: "WRONG", missing: "Missing", slow: "Slow" };

function facts(diagnosis: Diagnosis): Rows {
  const { surroundings, drivers, devices, values, step, together, passing, rates, kernels } = diagnosis;
  const { runtimes, cores, memory, cache, environment } = surroundings;
  const rows: Rows = [
    [
      "Runtimes",
      runtimes.map(({ name, version, here }) =>
        version === undefined ? `no ${name}` : `${name} ${version}${here ? " (in use)" : ""}`
      ).join(", "),
    ],
    [
      "Machine",
      `${cores} core${cores === 1 ? "" : "s"}, ${formatBytes(memory.free)} of ${formatBytes(memory.total)} free`,
    ],
    ["Cache", cache.folder ?? "none"],
  ];
  const set = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  if (set.length > 0) rows.push(["Settings", set.join(", ")]);
  const shown = new Set<string>();
  for (const [index, { driver, adapter, missing, said }] of drivers.entries()) {
    const inUse = driver === devices?.driver ? " (in use)" : "";
    rows.push([index === 0 ? "Drivers" : "", `${driver}: ${adapter ? `${adapter.name}${inUse}` : `no, ${missing}`}`]);
    if (adapter && inUse) rows.push(["", featuresText(adapter)]);
    for (const line of said.filter((each) => !shown.has(each))) rows.push(["", `"${line}"`]);
    said.forEach((line) => shown.add(line));
  }
  if (!devices) return rows;
  const { mode, implementation, version } = devices;
  rows.push(["WebGPU", implementation === "deno" ? `wgpu and naga, of Deno ${version}` : `Dawn, of webgpu ${version}`]);
  const at = together === undefined ? "" : `; at once they take ${together.toFixed(2)} of one after the other`;
  rows.push(["Devices", `2 ${mode}${at}`]);
  if (values) {
    const dtypes = [...new Set(values.map(({ dtype }) => dtype))];
    rows.push([
      "Numbers",
      dtypes.map((dtype) =>
        `${dtype} ${values.some((each) => each.dtype === dtype && each.problem) ? "WRONG" : "right"}`
      )
        .join(", ") + `: ${[...new Set(values.map(({ what }) => what))].join(", ")}, beside the host's`,
    ]);
  }
  if (step) {
    const { losses, ms, model, schedule, mixedLosses, mixedProblem, problem } = step;
    rows.push([
      "Training",
      losses.length === 0
        ? `fails: ${problem}`
        : `${problem === undefined ? "right" : "WRONG"}: ${model}, ${schedule}, ${significant(ms)} ms a step, loss ` +
          `${losses[0].toFixed(3)} to ${losses[losses.length - 1].toFixed(3)}` +
          (mixedLosses ? `; in mixed precision ${mixedProblem === undefined ? "too" : "WRONG"}` : ""),
    ]);
  }
  if (passing) rows.push(["Transfers", passingText(passing)]);
  if (rates) rows.push(["Rates", ratesText(rates)]);
  if (kernels) rows.push(["Kernels", kernelsText(kernels)]);
  return rows;
}

/** In words, what limits and features mean here. */
function featuresText({ vendor, cards, features, subgroups, limits }: FoundAdapter): string {
  const has = (name: string) => features.includes(name);
  const [least, most] = subgroups;
  return [
    vendor,
    ...cards.map((card) => `at ${card}`),
    has("shader-f16") ? "f16" : "no f16",
    has("timestamp-query") ? "timestamps" : "no timestamps",
    most === 0 || !has("subgroups") ? "no subgroups" : `subgroups of ${least === most ? least : `${least} to ${most}`}`,
    ...has("chromium-experimental-subgroup-matrix") ? ["matrix units"] : [],
    `buffers of ${formatBytes(limits.maxBufferSize)}, ${formatBytes(limits.maxStorageBufferBindingSize)} bound`,
    `workgroups of ${limits.maxComputeInvocationsPerWorkgroup} with ${
      formatBytes(limits.maxComputeWorkgroupStorageSize)
    }`,
  ].join(", ");
}

function passingText({ bytes, toDevice, toHost, message, smallBytes, smallMessage }: PassingTimes): string {
  const rate = (ms: number) => `${significant(bytes / ms / 1e6)} GB/s`;
  return `to a device ${rate(toDevice)}, back ${rate(toHost)}, a message of ${formatBytes(bytes)} ` +
    `${significant(message)} ms (${rate(message)}), one of ${formatBytes(smallBytes)} ${significant(smallMessage)} ms`;
}

function ratesText({ side, product, halfProduct, gflops, gigabytes }: Rates): string {
  return `products of ${side} x ${side} matrices ${significant(product)} GFLOP/s in f32` +
    (halfProduct === undefined ? "" : `, ${significant(halfProduct)} in f16`) +
    `; at best ${significant(gflops)} in registers; a copy ${significant(gigabytes)} GB/s`;
}

function kernelsText({ checked, left, problems, faults, ms }: KernelsCheck): string {
  const result = faults.length === 0 ? "all right" : `${faults.length} WRONG, see below`;
  const rest = left === 0 ? "" : `; ${left} that no run takes unasked were not reached in time (--all)`;
  return `${checked} on ${problems} problems in ${(ms / 1000).toFixed(0)} s, ${result}${rest}`;
}

const significant = (value: number) => value >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));

/** Labels and texts side by side, the texts wrapped. */
function textOf(rows: Rows, width: number): string {
  const none = ["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"];
  const lines = ["left", "left-mid", "mid", "mid-mid", "right", "right-mid", "middle"];
  const table = new CliTable({
    chars: Object.fromEntries([...none, ...lines].map((name) => [name, ""])),
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
    colWidths: [labelWidth, Math.max(20, width - labelWidth)],
    wordWrap: true,
    wrapOnWordBoundary: true,
  });
  for (const [label, text] of rows) table.push([label, escaped(text)]);
  return table.toString().split("\n").map((line) => line.trimEnd()).join("\n");
}
