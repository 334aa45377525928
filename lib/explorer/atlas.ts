/** The view "Atlas": maps of which schedule is fastest where; a click on a place opens its schedule with these costs. */
import { readAtlas } from "../planning/atlas_file.ts";
import { atlasCaps, type AtlasEntry, type AtlasRow } from "../planning/atlas.ts";
import { atlasCapName, atlasEntryName, atlasWinner } from "../report/atlas.ts";
import { scheduleColours } from "../report/style.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import { parsePolicy } from "../schedules/transforms/policy.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { generate } from "../schedules/generators/generate.ts";
import { wholeBackward } from "../schedules/transforms/whole.ts";
import { element } from "./dom.ts";
import { defaults, type Values } from "./settings.ts";
import type { State } from "./state.ts";
import { time } from "./why.ts";

/** The view. */
export interface AtlasView {
  readonly section: HTMLElement;
  /** Draws the maps, the first time that the view is seen. */
  open(): void;
}

/**
 * Makes the view.
 *
 * @param text The atlas as JSON.
 * @param choose Is told what is to be shown of a place that was clicked on.
 */
export function makeAtlas(text: () => string, choose: (state: State) => void): AtlasView {
  let rows: readonly AtlasRow[] = [];
  const maps = element("div", { class: "maps" }), legend = element("p", { class: "legend" });
  const about = element("p", { class: "status", role: "status", id: "atlas-about" });
  const memory = choice("atlas-memory", "Memory"), forward = choice("atlas-forward", "F / I");
  const message = choice("atlas-message", "Message");
  const choices = [memory, forward, message];
  for (const { select } of choices) select.addEventListener("input", draw);
  const section = element(
    "section",
    { class: "atlas", id: "atlas-view", hidden: true },
    element(
      "p",
      {},
      "Which schedule of the zoo, with its best policy of 2BP, has the shortest step with M micro-batches, simulated. The colour is the " +
        "schedule, the number its gain over plain 1F1B without 2BP. Click on a place to open its schedule with these costs.",
    ),
    element("div", { class: "fields" }, ...choices.map(({ field }) => field)),
    legend,
    maps,
    about,
    element(
      "p",
      { class: "note" },
      "A rank's forward takes 1, and its activations of a micro-batch are 1, on however many stages it lies: all schedules have the " +
        "same work. A message takes so much of a forward. Memory is the most activations that a rank may hold; derivatives are not counted. " +
        "With 2BP, what is split by itself, zb-v for example, has its W placed anew.",
    ),
  );

  function open(): void {
    if (rows.length > 0) return;
    rows = readAtlas(JSON.parse(text()));
    const option = (value: number, text = String(value)) => element("option", { value: String(value) }, text);
    memory.select.append(...atlasCaps.map((cap) => option(cap, atlasCapName(cap))));
    forward.select.append(...distinct(rows, (row) => row.forward).reverse().map((value) => option(value)));
    message.select.append(...distinct(rows, (row) => row.message).map((value) => option(value)));
    draw();
  }

  function draw(): void {
    const [cap, f, cost] = choices.map(({ select }) => Number(select.value));
    const shown = rows.filter((row) => row.forward === f && row.message === cost);
    const winners = new Set<string>();
    maps.replaceChildren(
      ...distinct(shown, ({ devices }) => devices).map((devices) => {
        const here = shown.filter((row) => row.devices === devices);
        const sizes = distinct(here, ({ microbatches }) => microbatches);
        const lines = distinct(here, ({ weight }) => weight).reverse().map((weight) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, String(weight)),
            ...sizes.map((size) => {
              const row = here.find((each) => each.weight === weight && each.microbatches === size);
              const cell = row && cellOf(row, cap, winners);
              return element("td", {}, ...cell ? [cell] : []);
            }),
          )
        );
        return element(
          "table",
          { class: "map", "data-devices": devices },
          element("caption", {}, `${devices} ranks`),
          element("tbody", {}, ...lines),
          element(
            "tfoot",
            {},
            element(
              "tr",
              {},
              element("th", { scope: "row" }, "W / I"),
              ...sizes.map((size) => element("td", {}, `M ${size}`)),
            ),
          ),
        );
      }),
    );
    legend.replaceChildren(
      ...Object.keys(scheduleColours).filter((name) => winners.has(name)).map((name) => {
        const swatch = element("i", { class: "swatch" });
        swatch.style.background = scheduleColours[name];
        return element("span", {}, swatch, name);
      }),
    );
    about.textContent = "Point at a place, or go to it with the tab key, to read more.";
  }

  function cellOf(row: AtlasRow, cap: number, winners: Set<string>): HTMLElement | undefined {
    const winner = atlasWinner(row, cap);
    if (!winner) return undefined;
    const { entry, gain, second, ahead } = winner;
    winners.add(entry.schedule);
    const words =
      `${row.devices} ranks, ${row.microbatches} micro-batches, W/I ${row.weight}: ${atlasEntryName(entry)} takes ` +
      `${time(entry.makespan)}, plain 1F1B ${time(row.plain)}; it holds ${time(entry.peak)} at most` +
      (second
        ? `; ${atlasEntryName(second)} is ${ahead === 0 ? "as fast" : `${(100 * ahead!).toFixed(1)} % behind`}`
        : "");
    const made = element("button", { type: "button", "aria-label": words }, gain.toFixed(2));
    made.style.background = scheduleColours[entry.schedule];
    made.addEventListener("click", () => choose(atlasState(row, entry)));
    for (const event of ["pointerenter", "focus"]) made.addEventListener(event, () => about.textContent = words);
    return made;
  }

  return { section, open };
}

/** What the page shows of a schedule at a point of the atlas. */
export function atlasState(row: AtlasRow, entry: AtlasEntry): State {
  const { schedule: name, policy } = entry, { devices, microbatches } = row, values = valuesOf(row, entry);
  const published = generate(name, { devices, microbatches });
  if (!policy || !sizesOf(published).split) return { values, edits: {} };
  // Its W are placed anew: as a schedule from elsewhere, whose backward passes are whole.
  return { values, given: { name, lists: wholeBackward(published).actions }, edits: {} };
}

function valuesOf({ devices, microbatches, weight, forward, message }: AtlasRow, entry: AtlasEntry): Values {
  const { schedule, policy: text } = entry, { chunks } = zoo.find(({ name }) => name === schedule)!;
  const f = 1 / chunks, policy = text && parsePolicy(text);
  return {
    ...defaults,
    schedule,
    devices: String(devices),
    microbatches: String(microbatches),
    ...policy && { policy: policy.kind },
    ...policy?.kind === "every" && { every: String(policy.count) },
    ...policy?.kind === "cap" && { cap: String(policy.bytes) },
    f: String(f),
    i: String(f / forward),
    w: String(f / forward * weight),
    transfer: String(message),
    activations: String(f),
    derivatives: "0",
  };
}

function distinct(rows: readonly AtlasRow[], pick: (row: AtlasRow) => number): number[] {
  return [...new Set(rows.map(pick))].sort((a, b) => a - b);
}

function choice(id: string, name: string): { readonly field: HTMLElement; readonly select: HTMLSelectElement } {
  const select = element("select", { id });
  return { field: element("div", { class: "field choice" }, element("label", { for: id }, name), select), select };
}
