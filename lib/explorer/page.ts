/** The page: puts its parts together, and shows in them what follows from the state. */
import { reasonOf, UserError } from "../errors.ts";
import { kindColours, kindNames, memoryColours } from "../report/style.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import type { Kind } from "../schedules/schedule.ts";
import type { SchedulePair } from "../schedules/transforms/pair.ts";
import { makeAtlas } from "./atlas.ts";
import { type Controls, makeControls } from "./controls.ts";
import { button, element } from "./dom.ts";
import { figuresOf } from "./figures.ts";
import { makeFiles, makeLink } from "./files.ts";
import { begin, change, type History, redo, undo } from "./history.ts";
import { keyHelp } from "./keys.ts";
import { usedCategories } from "./memory_chart.ts";
import { type Bar, type Outcome, outcomeOf, titleOf } from "./outcome.ts";
import { type Frame, type Host, makePartView, type PartView } from "./part_view.ts";
import { makeRunning } from "./running.ts";
import { makeSearching } from "./searching.ts";
import { type Field, labels } from "./settings.ts";
import { fromHash, toHash } from "./share.ts";
import { first, type State, type Variant, withEdit, withGiven, withoutEdit, withValue } from "./state.ts";
import { makeTheme } from "./theme.ts";
import { type View, zoomed } from "./view.ts";
import { time, whyOf } from "./why.ts";

/** Builds the page; `script` is the text of the script that runs, which the search's worker runs too. */
export function openPage(script: string): void {
  let history: History<State> = begin(first);
  /** Of the state, or of the last one that was right. */
  let outcome: Outcome | undefined, isRight = false;
  /** Nothing: the whole step, however long it is. */
  let view: View | undefined, request = 0;
  let inspected: { variant: Variant; bar: Bar } | undefined;

  const error = element("p", { class: "fault", role: "alert", id: "error", hidden: true });
  const figures = element("div", { class: "figures" });
  const legend = element("p", { class: "legend" });
  const what = element("p", { class: "what" }), because = element("p", { class: "because", id: "because" });
  const buttons = element("div", { class: "buttons" });
  const inspector = element("aside", { class: "inspector", "aria-live": "polite" }, what, because, buttons);

  const until = () => outcome ? Math.max(outcome.base.until, outcome.split.until) || 1 : 1;
  const look = (next: View) => view = next.from <= 0 && next.to >= until() ? undefined : next;
  const partOf = (variant: Variant) => outcome![variant];
  const say = (text: string | undefined) => {
    error.hidden = text === undefined;
    error.textContent = text ?? "";
  };

  const host: Host = {
    inspect(variant, bar) {
      inspected = bar && { variant, bar };
      showInspected();
    },
    preview(variant, lists) {
      if (!lists) return showInspected();
      if (!isRight) return;
      const { [variant]: part } = outcomeOf(withEdit(history.now, variant, lists));
      const change = part.until - partOf(variant).until;
      what.textContent = "Dropped here:";
      buttons.replaceChildren();
      because.textContent = part.fault ??
        `${time(part.until)} units${
          partOf(variant).fault
            ? ""
            : change === 0
            ? ", as before"
            : `, ${change > 0 ? "+" : "−"}${time(Math.abs(change))}`
        }`;
      because.classList.toggle("bad", part.fault !== undefined);
    },
    edit: (variant, lists) => go(withEdit(history.now, variant, lists)),
    reset: (variant) => go(withoutEdit(history.now, variant)),
    look(next) {
      look(next);
      draw();
    },
    glide(change) {
      look(change(view ?? { from: 0, to: until() }));
      cancelAnimationFrame(request);
      request = requestAnimationFrame(draw);
    },
  };
  const parts: Readonly<Record<Variant, PartView>> = {
    base: makePartView("base", host),
    split: makePartView("split", host),
  };
  const controls: Controls = makeControls((field, value, typed) =>
    go(withValue(history.now, field, value), typed ? field : undefined)
  );
  const searching = makeSearching(
    script,
    () => {
      if (!isRight) throw new UserError("There is nothing to search from: what stands in the form is wrong");
      const { base, split } = outcome!, { placement } = split.schedule;
      const isPlain = ({ schedule: { actions }, fault }: typeof split) =>
        fault === undefined && actions.every((list) => list.every(({ kind }) => kind !== "R"));
      const from = [split, base].find(isPlain)?.schedule;
      return { values: history.now.values, microbatches: sizesOf(base.schedule).microbatches, placement, from };
    },
    ({ lists, microbatches, ranges }) => go(withGiven(history.now, "search", lists, microbatches, ranges)),
  );
  controls.searchGroup.append(...searching.parts);
  controls.form.append(makeFiles({
    load: (schedule) => go(withGiven(history.now, schedule.name, schedule.actions, sizesOf(schedule).microbatches)),
    scheduleOf: (variant) => {
      if (isRight) return partOf(variant).schedule;
      throw new UserError("There is no schedule to save: what stands in the form is wrong");
    },
    fail: (reason) => say(reason instanceof UserError ? reason.message : `A mistake of this page: ${reasonOf(reason)}`),
  }));

  const running = makeRunning(
    () => document.getElementById("run-worker")!.textContent,
    () => {
      if (!isRight) throw new UserError("There is no schedule to run: what stands in the form is wrong");
      return runnable(outcome!);
    },
  );
  const atlas = makeAtlas(() => document.getElementById("atlas")!.textContent, (state) => {
    go(state);
    turnTo("simulated");
  });
  const simulated = button("Simulate", "Schedules as they are priced by the form", () => turnTo("simulated"));
  const here = button("Run it here", "Train by the schedule on this machine's GPU", () => turnTo("here"));
  here.id = "run-it-here";
  const map = button("Atlas", "Which schedule is fastest where", () => turnTo("atlas"));
  map.id = "open-atlas";
  const back = button("Undo", "Undo the last change (Ctrl Z)", () => walk(undo(history)));
  const forth = button("Redo", "Do it again (Ctrl Y)", () => walk(redo(history)));
  const zoom = (factor: number) => () => host.glide((view) => zoomed(view, factor, (view.from + view.to) / 2, until()));
  document.body.append(
    element(
      "header",
      {},
      element("h1", {}, "twobp explorer"),
      element("p", { class: "note" }, "Pipeline schedules without and with 2BP"),
      element("div", { class: "buttons views", role: "group", "aria-label": "View" }, simulated, map, here),
      element("div", { class: "buttons" }, back, forth, makeLink(), makeTheme()),
    ),
    element(
      "div",
      { class: "layout" },
      controls.form,
      element(
        "main",
        {},
        error,
        figures,
        element(
          "div",
          { class: "toolbar" },
          legend,
          element(
            "div",
            { class: "buttons" },
            button("−", "Zoom out", zoom(1 / 1.5)),
            button("+", "Zoom in", zoom(1.5)),
            button("All", "See the whole step", () => host.look({ from: 0, to: until() })),
          ),
        ),
        parts.base.section,
        parts.split.section,
        inspector,
        helpOf(),
        running.section,
        atlas.section,
      ),
    ),
  );
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (!(event.ctrlKey || event.metaKey) || typing) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    walk(key === "y" || event.shiftKey ? redo(history) : undo(history));
  });
  addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== toHash(history.now)) open(location.hash);
  });

  /** Goes on to another state. */
  function go(state: State, to?: string): void {
    walk(change(history, state, to));
  }

  function walk(next: History<State>): void {
    if (next.now !== history.now) searching.abandon();
    history = next;
    show();
  }

  /** Shows the simulated schedules, the atlas, or the run. */
  function turnTo(view: "simulated" | "atlas" | "here"): void {
    document.body.classList.toggle("running", view === "here");
    document.body.classList.toggle("mapping", view === "atlas");
    running.section.hidden = view !== "here";
    atlas.section.hidden = view !== "atlas";
    for (const [button, own] of [[simulated, "simulated"], [map, "atlas"], [here, "here"]] as const) {
      button.setAttribute("aria-pressed", String(own === view));
    }
    if (view === "here") running.open();
    if (view === "atlas") atlas.open();
  }

  /** What the address says. */
  function open(hash: string): void {
    try {
      go(fromHash(hash));
    } catch (reason) {
      show();
      say(reasonOf(reason));
    }
  }

  function show(): void {
    const { now: state, past, future } = history;
    back.disabled = past.length === 0;
    forth.disabled = future.length === 0;
    keepAddress(toHash(state));
    let wrong: Field | undefined;
    try {
      outcome = outcomeOf(state);
      isRight = true;
      say(undefined);
    } catch (reason) {
      isRight = false;
      if (!(reason instanceof UserError)) throw reason;
      say(reason.message);
      wrong = fieldOf(reason.message);
    }
    const entry = zoo.find(({ name }) => name === state.values.schedule);
    const ranks = Number(state.values.devices);
    const usual = entry && Number.isInteger(ranks) ? entry.microbatches(ranks) : undefined;
    const isSplit = isRight && outcome!.isSplit;
    controls.show(state.values, { given: state.given?.name, wrong, usual, isSplit });
    document.body.classList.toggle("stale", !isRight);
    inspected = undefined;
    if (outcome && isRight) {
      figures.replaceChildren(...figuresOf(outcome));
      legend.replaceChildren(...legendOf(outcome));
      if (view && view.to > until()) view = undefined;
      draw();
    }
    showInspected();
    running.refresh();
  }

  function draw(): void {
    if (!outcome) return;
    const { base, split, settings: { cap } } = outcome, whole = { from: 0, to: until() };
    const peaks = [base, split].flatMap(({ priced }) => priced?.simulation.peak ?? []);
    const frame: Frame = {
      view: view ?? whole,
      until: whole.to,
      mostMemory: Math.max(...peaks, cap !== undefined && peaks.some((peak) => 2 * peak > cap) ? cap : 0) * 1.05,
      cap,
    };
    parts.base.show(base, frame);
    parts.split.show(split, frame);
    if (inspected) parts[inspected.variant].mark(inspected.bar);
  }

  function showInspected(): void {
    because.classList.remove("bad");
    for (const variant of ["base", "split"] as const) {
      parts[variant].mark(inspected?.variant === variant ? inspected.bar : undefined);
    }
    if (!inspected || !outcome) {
      what.textContent = "Point at an action, or tap it, to see why it starts when it does; drag it to move it.";
      because.textContent = "";
      buttons.replaceChildren();
      return;
    }
    const { variant, bar } = inspected, why = whyOf(partOf(variant), bar), { cause } = why;
    what.textContent = why.what;
    because.textContent = why.because;
    buttons.replaceChildren(
      button("Earlier", "Move it before the action before it", () => parts[variant].move(bar, bar.index - 1)),
      button("Later", "Move it behind the action after it", () => parts[variant].move(bar, bar.index + 1)),
      ...cause ? [button("Go to the cause", "Go to what it waited for", () => parts[variant].go(cause))] : [],
    );
  }

  turnTo("simulated");
  try {
    history = begin(fromHash(location.hash));
    show();
  } catch (reason) {
    show();
    say(reasonOf(reason));
  }
}

/** Ranks and micro-batches that a small GPU has room and a visitor time for. */
const mostRanks = 8, mostMicrobatches = 32;

/**
 * The schedules of an outcome, to be run on the visitor's GPU.
 *
 * @throws {UserError} Says why they cannot be.
 */
function runnable({ base, split }: Outcome): SchedulePair {
  const wrong = [base, split].find(({ fault }) => fault !== undefined);
  if (wrong) throw new UserError(`${titleOf(wrong)} does not run: ${wrong.fault}`);
  const { devices, microbatches } = sizesOf(base.schedule);
  if (devices < 2 || devices > mostRanks) {
    throw new UserError(`The schedule has ${devices} ranks; from 2 to ${mostRanks} can run here`);
  }
  if (microbatches > mostMicrobatches) {
    throw new UserError(`The schedule has ${microbatches} micro-batches; up to ${mostMicrobatches} can run here`);
  }
  return { base: base.schedule, split: split.schedule };
}

/** The field that a message is about: it begins with its name. */
function fieldOf(message: string): Field | undefined {
  return (Object.keys(labels) as Field[]).find((field) => message.startsWith(`${labels[field]} `));
}

function keepAddress(hash: string): void {
  try {
    history.replaceState(null, "", `#${hash}`);
  } catch {
    // Some browsers allow only so many in a while: the next change tells all.
  }
}

function legendOf({ base, split, settings: { cap } }: Outcome): HTMLElement[] {
  const kinds = new Set([base, split].flatMap(({ bars }) => bars.flat().map(({ action }) => action.kind)));
  const several = base.schedule.placement.length > base.schedule.actions.length;
  const entry = (colour: string, text: string, name = "swatch") => {
    const swatch = element("i", { class: name });
    if (colour) swatch.style.background = colour;
    return element("span", {}, swatch, text);
  };
  const memory = [base, split].flatMap(({ priced }) => priced ? [...priced.memory] : []);
  return [
    ...(Object.keys(kindNames) as Kind[]).filter((kind) => kinds.has(kind)).map((kind) =>
      entry(kindColours[kind], kindNames[kind])
    ),
    ...several ? [element("span", {}, "paler: a rank's later stages")] : [],
    entry("", "critical path", "swatch line"),
    ...[base, split].some(({ fault, known }) => fault !== undefined && known) ? [entry("", "hangs", "swatch box")] : [],
    ...usedCategories(memory).map((name) => entry(memoryColours[name], name)),
    ...cap === undefined ? [] : [entry("", "cap", "swatch line dashed")],
  ];
}

function helpOf(): HTMLElement {
  const rows = keyHelp.flatMap(([keys, meaning]) => [element("dt", {}, keys), element("dd", {}, meaning)]);
  return element(
    "details",
    { class: "group help" },
    element("summary", {}, "Keys and pointers"),
    element("dl", {}, ...rows),
    element(
      "p",
      { class: "note" },
      "Drag an action along its row to move it, the ground to move the view; Ctrl and the wheel, or two fingers, zoom. " +
        "Bars that do not run stand behind those that do, in the order of their lists. The peaks left of the memory are " +
        "in the units of the form.",
    ),
  );
}
