/** One of the two schedules on the page: its name, what is wrong with it, its drawing, and what is done on that. */
import { criticalPathText } from "../report/schedule.ts";
import { axisHeight, drawCause, drawDrop, drawRows } from "./chart.ts";
import { button, drawn, element } from "./dom.ts";
import { dropAt, moveAction } from "./edit.ts";
import { placeOf, watchGestures } from "./gestures.ts";
import { askedBy } from "./keys.ts";
import type { Lists } from "./lists.ts";
import { drawMemory, memoryHeight } from "./memory_chart.ts";
import { type Bar, type Part, titleOf } from "./outcome.ts";
import { gutter, margin, rowsHeight, type Scale, scaleOf } from "./scale.ts";
import type { Variant } from "./state.ts";
import { moved, showing, type View, zoomed } from "./view.ts";
import { time } from "./why.ts";

/** What the page does with what is done here. */
export interface Host {
  /** Says why an action starts when it does, or nothing any more. */
  inspect(variant: Variant, bar: Bar | undefined): void;
  /** Says what an edit would lead to, while an action is dragged; nothing where it ended. */
  preview(variant: Variant, lists: Lists | undefined): void;
  /** Makes an edit. */
  edit(variant: Variant, lists: Lists): void;
  /** Makes a schedule again what it was before it was edited. */
  reset(variant: Variant): void;
  /** Looks at another stretch of time, on both drawings. */
  look(view: View): void;
  /** The same while a gesture goes on: with the next picture of the screen. */
  glide(change: (view: View) => View): void;
}

/** What the drawings have in common. */
export interface Frame {
  readonly view: View;
  /** When the longer of the two steps ends. */
  readonly until: number;
  /** The most that any rank holds, or may hold. */
  readonly mostMemory: number;
  readonly cap?: number;
}

/** A schedule on the page. */
export interface PartView {
  readonly section: HTMLElement;
  /** Shows a schedule. */
  show(part: Part, frame: Frame): void;
  /** Goes to an action. */
  go(place: { rank: number; index: number }): void;
  /** Draws what an action waited for, or nothing. */
  mark(bar: Bar | undefined): void;
  /** Moves an action within its rank. */
  move(bar: Bar, to: number): void;
}

/** Makes the section of a schedule. */
export function makePartView(variant: Variant, host: Host): PartView {
  const title = element("span", { id: `title-${variant}` });
  const reset = button("Drop the edits", "What it was before it was edited", () => host.reset(variant));
  const heading = element("h2", {}, title, reset);
  const fault = element("p", { class: "fault", role: "alert", hidden: true });
  const path = element("p", { class: "note" });
  const drawing = drawn("svg", { class: "drawing", role: "group", "aria-labelledby": title.id });
  const holder = element("div", { class: "holder" }, drawing);
  const section = element("section", { class: "part", id: variant }, heading, fault, holder, path);
  let part: Part, frame: Frame, scale: Scale, over: SVGGElement, chosen = { rank: 0, index: 0 };

  const barAt = ({ rank, index }: { rank: number; index: number }) => part.bars[rank]?.[index];
  const targetOf = (place: { rank: number; index: number }, x: number) =>
    dropAt(part.bars[place.rank], place.index, scale.timeAt(x));
  const edited = ({ rank, index }: { rank: number; index: number }, to: number) =>
    moveAction(part.schedule.actions, rank, index, to);

  function draw(): void {
    const hadFocus = drawing.contains(document.activeElement);
    const width = Math.max(holder.clientWidth, 280), ranks = part.bars.length;
    const memory = part.priced?.memory;
    const rows = rowsHeight(ranks) + axisHeight, height = rows + (memory ? memoryHeight(ranks) : 0);
    scale = scaleOf(frame.view, width, `url(#plot-${variant})`);
    if (!barAt(chosen)) chosen = { rank: part.bars.findIndex((row) => row.length > 0), index: 0 };
    const isSeen = ({ start, end }: Bar) => end >= frame.view.from && start <= frame.view.to;
    const chosenBar = barAt(chosen);
    const tabbed = chosenBar && isSeen(chosenBar) ? chosen : part.bars.flat().find(isSeen) ?? chosen;
    const plot = drawn("rect", { x: gutter - 3, y: 0, width: width - gutter - margin + 6, height });
    over = drawn("g", { class: "overlay", "clip-path": scale.clip });
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.setAttribute("width", String(width));
    drawing.setAttribute("height", String(height));
    drawing.replaceChildren(
      drawn("defs", {}, drawn("clipPath", { id: `plot-${variant}` }, plot)),
      ...drawRows(part, scale, tabbed),
      ...memory
        ? drawMemory(memory, scale, { top: rows, most: frame.mostMemory, until: part.until, cap: frame.cap })
        : [],
      over,
    );
    if (hadFocus) focus();
  }

  function focus(): void {
    const bar = drawing.querySelector<SVGGElement>(`[data-rank="${chosen.rank}"][data-index="${chosen.index}"]`);
    bar?.focus({ preventScroll: true });
    bar?.scrollIntoView({ block: "nearest" });
  }

  function go(place: { rank: number; index: number }): void {
    const bar = barAt(place);
    if (!bar) return;
    chosen = place;
    host.look(showing(frame.view, bar.start, bar.end, frame.until)); // draws
    for (const each of drawing.querySelectorAll("[tabindex='0']")) each.setAttribute("tabindex", "-1");
    drawing.querySelector(`[data-rank="${place.rank}"][data-index="${place.index}"]`)?.setAttribute("tabindex", "0");
    focus();
    host.inspect(variant, bar);
  }

  function move(bar: Bar, to: number): void {
    const last = part.bars[bar.rank].length - 1, place = Math.max(0, Math.min(to, last));
    if (place === bar.index) return;
    chosen = { rank: bar.rank, index: place };
    host.edit(variant, edited(bar, place)); // shows
    go(chosen);
  }

  drawing.addEventListener("pointerover", (event) => {
    const place = placeOf(event.target);
    if (place && event.buttons === 0) host.inspect(variant, barAt(place));
  });
  // Not on the drawing: Chromium lets a drawing that listens to the focus have it.
  holder.addEventListener("focusin", (event) => {
    const place = placeOf(event.target);
    if (!place) return;
    chosen = place;
    host.inspect(variant, barAt(place));
  });
  drawing.addEventListener("keydown", (event) => {
    const place = placeOf(event.target), bar = place && barAt(place), asked = bar && askedBy(event, part, bar);
    if (!bar || !asked) return;
    event.preventDefault();
    if ("go" in asked) go(asked.go);
    else if ("move" in asked) move(bar, asked.move);
    else if (asked.zoom === "all") host.look({ from: 0, to: frame.until });
    else host.look(zoomed(frame.view, asked.zoom, (bar.start + bar.end) / 2, frame.until));
  });
  watchGestures(drawing, {
    drag(place, x) {
      const to = targetOf(place, x);
      drawing.classList.add("dragging");
      over.replaceChildren(drawDrop(part, place.rank, place.index, to, scale));
      host.preview(variant, to === place.index ? undefined : edited(place, to));
    },
    drop(place, x) {
      drawing.classList.remove("dragging");
      host.preview(variant, undefined);
      const bar = barAt(place), to = targetOf(place, x);
      if (to === place.index) go(place);
      else move(bar, to);
    },
    cancel() {
      drawing.classList.remove("dragging");
      over.replaceChildren();
      host.preview(variant, undefined);
    },
    choose: go,
    pan: (pixels) => {
      const by = scale.timeAt(pixels) - scale.timeAt(0);
      host.glide((view) => moved(view, by, frame.until));
    },
    zoom: (factor, x) => {
      const about = scale.timeAt(x);
      host.glide((view) => zoomed(view, factor, about, frame.until));
    },
  });
  // A drawing has as many pixels as there are, and its texts one size.
  new ResizeObserver(() => part && holder.clientWidth !== scale.width && draw()).observe(holder);

  return {
    section,
    go,
    move,
    show(next, shared) {
      [part, frame] = [next, shared];
      const simulation = part.priced?.simulation;
      reset.hidden = !part.edited;
      title.textContent = `${titleOf(part)}: ${simulation ? `${time(simulation.makespan)} units` : "does not run"}`;
      fault.hidden = part.fault === undefined;
      fault.textContent = part.fault ?? "";
      path.textContent = simulation ? criticalPathText(simulation) : "";
      section.classList.toggle("faulty", part.fault !== undefined);
      draw();
    },
    mark: (bar) => over?.replaceChildren(...bar ? drawCause(part, bar, scale) : []),
  };
}
