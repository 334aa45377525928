/** The view "Run it here": a pair of schedules trained on the visitor's own GPU, and what that gave. */
import { UserError } from "../errors.ts";
import { rangeText } from "../report/certainty.ts";
import { gainTable, throughputNotes, throughputTable } from "../report/throughput.ts";
import { expectValue, whole } from "../rules.ts";
import type { SchedulePair } from "../schedules/transforms/pair.ts";
import { axisHeight, drawRows } from "./chart.ts";
import { button, drawn, element } from "./dom.ts";
import { tableOf } from "./figures.ts";
import { download } from "./files.ts";
import { drawLosses } from "./loss_chart.ts";
import { type Bar, type Part, titleOf } from "./outcome.ts";
import type { MeasuredStep, RunAnswer, RunOrder, RunReport } from "./run_messages.ts";
import { rowsHeight, scaleOf } from "./scale.ts";
import { numberOf } from "./settings.ts";
import type { Variant } from "./state.ts";
import { grainNote } from "./timestamps.ts";

/** The view. */
export interface Running {
  readonly section: HTMLElement;
  /** Looks for a GPU, the first time that the view is seen. */
  open(): void;
  /** Says what would run: the form has changed. */
  refresh(): void;
}

/**
 * Makes the view.
 *
 * @param script The text of the worker's script.
 * @param ask What to run; throws a UserError where that cannot be.
 */
export function makeRunning(script: () => string, ask: () => SchedulePair): Running {
  const gpu = element("p", { id: "run-gpu", role: "status" }, "Looking for a GPU");
  const what = element("p", { id: "run-what" });
  const repeats = fieldOf("run-repeats", "11"), samples = fieldOf("run-samples", "8");
  const toggle = button("Run", "Train on this GPU", () => worker && isRunning ? stop() : start());
  toggle.id = "run";
  toggle.disabled = true;
  const save = button("Download results", "The report as JSON, with what the browser says of the GPU", () => {
    const schedule = report!.gains[0].schedule.replace(/[^\w-]+/g, "-");
    download(`throughput-virtual-${report!.devices}-llama-tiny-${schedule}.json`, json(report!), "application/json");
  });
  save.id = "run-save";
  save.disabled = true;
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Steps taken" });
  const status = element("p", { class: "status", role: "status", id: "run-status" });
  const gain = element("p", { class: "gain", id: "run-gain" });
  const tables = element("div", { class: "figures" });
  const losses = drawn("svg", { class: "drawing", role: "img", "aria-label": "The loss, step by step" });
  const charts = element("div", { class: "holder" }), lossHolder = element("div", { class: "holder" }, losses);
  const results = element("div", { hidden: true }, gain, lossHolder, charts, tables);
  const section = element(
    "section",
    { class: "here", id: "here", hidden: true },
    element(
      "p",
      {},
      "Trains llama-tiny (0.9 million parameters, bytes as tokens) by the schedule of the form without and with 2BP in turns, " +
        "on virtual devices: each action is really computed on your GPU, one at a time, and step times are composed of their " +
        "device times. Nothing leaves this page.",
    ),
    gpu,
    what,
    element(
      "div",
      { class: "fields" },
      field("Pairs of steps", "1 to 200", repeats),
      field("Samples", "in a micro-batch, 1 to 64", samples),
    ),
    element("div", { class: "buttons" }, toggle, save),
    bar,
    status,
    results,
  );
  let worker: Worker | undefined, hasGpu = false, isRunning = false;
  let taken: number[] = [], steps = 1, pair: SchedulePair | undefined;
  let report: RunReport | undefined, last: readonly [MeasuredStep, MeasuredStep] | undefined;

  function open(): void {
    if (worker) return;
    const address = URL.createObjectURL(new Blob([script()], { type: "text/javascript" }));
    worker = new Worker(address);
    worker.onmessage = ({ data }: { data: RunAnswer }) => hear(data);
    worker.onerror = ({ message }) => end(`The run failed, which is a mistake of this page: ${message}`);
    tell("look");
  }

  const tell = (order: RunOrder) => worker!.postMessage(order);

  function start(): void {
    try {
      const asked = { repeats: numberIn(repeats, "Pairs of steps", 200), samples: numberIn(samples, "Samples", 64) };
      pair = ask();
      tell({ pair, ...asked });
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      status.textContent = error.message;
      return;
    }
    isRunning = true;
    taken = [];
    report = last = undefined;
    save.disabled = true;
    results.hidden = true;
    gain.textContent = "";
    for (const each of [charts, tables]) each.replaceChildren();
    bar.hidden = false;
    bar.value = 0;
    toggle.textContent = "Stop";
    status.textContent = "Compiling kernels";
  }

  function stop(): void {
    tell("stop");
    toggle.disabled = true; // until that is over
    status.textContent = "Stopping after the pair under way";
  }

  function end(text: string): void {
    isRunning = false;
    toggle.textContent = "Run";
    toggle.disabled = !hasGpu;
    bar.hidden = true;
    status.textContent = text;
    refresh();
  }

  function hear(answer: RunAnswer): void {
    if ("missing" in answer) {
      gpu.textContent = answer.missing;
      gpu.classList.add("fault");
    } else if ("gpu" in answer) {
      const { name, software } = answer.gpu;
      gpu.textContent = `GPU: ${name}${software ? ", which computes on the processor" : ""}`;
      hasGpu = true;
      refresh();
    } else if ("taken" in answer) {
      taken.push(answer.loss);
      steps = answer.of;
      bar.value = answer.taken / answer.of;
      if (!toggle.disabled) {
        status.textContent = `Step ${answer.taken} of ${answer.of}${answer.taken <= 2 ? ", not counted" : ""}: loss ${
          answer.loss.toFixed(3)
        }`;
      }
      results.hidden = false;
      drawLoss();
    } else if ("report" in answer) {
      ({ report, last } = answer);
      showReport();
    } else if ("over" in answer) {
      const pairs = report?.gains[0].pairs ?? 0;
      end(`${answer.over === "done" ? "Done" : "Stopped"}: ${pairs} pair${pairs === 1 ? "" : "s"} of steps counted.`);
    } else end(answer.refused);
  }

  function refresh(): void {
    if (isRunning) return;
    try {
      const { base, split } = ask();
      what.textContent = `Will run: ${
        titleOf({ variant: "split", schedule: split, edited: false })
      } on ${base.actions.length} ranks`;
      what.classList.remove("bad");
      toggle.disabled = !hasGpu;
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      what.textContent = error.message;
      what.classList.add("bad");
      toggle.disabled = true;
    }
  }

  function showReport(): void {
    const { gains: [{ gain: ratio, spread, interval, pairs }], timestampStepMs } = report!;
    save.disabled = false;
    gain.textContent =
      `Gain of 2BP: ${ratio.toFixed(3)} (virtual), the median of ${pairs} pair${pairs === 1 ? "" : "s"}; ` +
      `quartiles ${rangeText(spread)}${interval ? `, 95 % interval ${rangeText(interval)}` : ""}.`;
    const figures = [throughputTable(report!), gainTable(report!)];
    const notes = [
      ...figures.flatMap(({ notes = [] }) => notes),
      ...throughputNotes(report!),
      ...grainNote(timestampStepMs),
    ];
    tables.replaceChildren(
      ...figures.map(({ columns, rows }) => tableOf(columns, rows, "Results")),
      ...notes.map((note) => element("p", { class: "note" }, note)),
    );
    drawSteps();
  }

  function drawLoss(): void {
    drawLosses(losses, taken, steps, Math.max(lossHolder.clientWidth, 280));
  }

  /** Both steps of the last pair, on one axis. */
  function drawSteps(): void {
    if (!last || !pair) return;
    const until = Math.max(...last.map(({ ms }) => ms)), width = Math.max(charts.clientWidth, 280);
    const variants = ["base", "split"] as const;
    charts.replaceChildren(...variants.flatMap((variant, at) => {
      const part = partOf(variant, pair![variant], last![at]), { ms } = last![at];
      const height = rowsHeight(part.bars.length) + axisHeight, name = `${titleOf(part)}: ${ms.toFixed(2)} ms`;
      const shape = { viewBox: `0 0 ${width} ${height}`, width, height };
      const drawing = drawn("svg", {
        class: "drawing",
        id: `measured-${variant}`,
        role: "img",
        "aria-label": name,
        ...shape,
      });
      const nowhere = { rank: -1, index: -1 };
      drawing.append(...drawRows(part, scaleOf({ from: 0, to: until }, width, ""), nowhere, "ms"));
      return [element("h2", {}, `${name}, the last measured step`), drawing];
    }));
  }

  // A drawing has as many pixels as there are, and its texts one size.
  let width = 0;
  new ResizeObserver(() => {
    if (results.hidden || charts.clientWidth === width) return;
    width = charts.clientWidth;
    drawLoss();
    drawSteps();
  }).observe(section);

  return { section, open, refresh };
}

/** A measured step as the drawings want it. */
function partOf(variant: Variant, schedule: SchedulePair[Variant], { bars: measured, ms }: MeasuredStep): Part {
  const bars: Bar[][] = schedule.actions.map(() => []);
  for (const { rank, index, start, end, critical } of measured) {
    bars[rank][index] = { rank, index, action: schedule.actions[rank][index], start, end, state: "runs", critical };
  }
  const costs = {
    duration: (_: unknown, rank: number, index: number) => bars[rank][index].end - bars[rank][index].start,
  };
  return { variant, schedule, edited: false, bars, until: ms, costs };
}

/** As other reports are written: what is no number is null. */
const json = (report: RunReport) => `${JSON.stringify(report, null, 2)}\n`;

function fieldOf(id: string, value: string): HTMLInputElement {
  return element("input", { id, value, type: "text", inputmode: "numeric", autocomplete: "off", size: 6 });
}

function field(name: string, meaning: string, input: HTMLInputElement): HTMLElement {
  const label = element("label", { for: input.id }, name, " ", element("small", {}, meaning));
  return element("div", { class: "field" }, label, input);
}

function numberIn(input: HTMLInputElement, name: string, most: number): number {
  const value = numberOf(input.value), rule = whole(1, most);
  input.setAttribute("aria-invalid", String(!rule.accepts(value)));
  expectValue(name, value, rule);
  return value as number;
}
