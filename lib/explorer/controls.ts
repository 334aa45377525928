/** The form: what can be chosen, in groups. */
import { zoo } from "../schedules/generators/zoo.ts";
import { policies, spellingOf } from "../schedules/transforms/policy.ts";
import { element } from "./dom.ts";
import { type Field, labels, type Values } from "./settings.ts";

/** A group of the form. */
interface Group {
  readonly title: string;
  readonly note?: string;
  readonly fields: readonly (readonly [field: Field, meaning: string])[];
}

const perStage = "one for all stages, or one for each: 1,1,2,1";

const groups: readonly Group[] = [
  {
    title: "Schedule",
    fields: [
      ["schedule", "from the literature, or from a file or a search"],
      ["devices", "ranks in the pipeline, 1 to 64"],
      ["microbatches", "micro-batches in a step; empty: the schedule's usual number"],
      ["chunks", "for schedules that leave it open; empty: the usual number"],
    ],
  },
  {
    title: "2BP",
    fields: [
      ["policy", "when the weight gradients run that 2BP puts off"],
      ["every", "how many weight gradients are pending when they run, for every:K"],
      ["width", "micro-batches that one W takes, at most"],
    ],
  },
  {
    title: "Time of actions",
    note: perStage,
    fields: [
      ["f", "forward"],
      ["i", "input gradient"],
      ["w", "weight gradient"],
      ["b", "full backward; empty: I + W"],
    ],
  },
  {
    title: "Links",
    note: "one for all, or one for each link from a rank to the next",
    fields: [
      ["latency", "time until a message begins to arrive"],
      ["transfer", "time that it takes from then on"],
    ],
  },
  {
    title: "Memory",
    note: perStage,
    fields: [
      ["activations", "kept of a micro-batch from F on"],
      ["released", "of these what I gives back"],
      ["derivatives", "kept from I to W"],
      ["cap", "the most that a rank may hold: drawn, kept by a search and by the policy cap; empty: none"],
    ],
  },
  {
    title: "Search",
    note: "the fastest schedule of one stage a rank under the cap, each backward whole or split",
    fields: [["budget", "candidates to look at before giving up on a proof"]],
  },
];

/** The form on the page. */
export interface Controls {
  readonly form: HTMLFormElement;
  /** The group of the search, for what belongs to it besides. */
  readonly searchGroup: HTMLElement;
  /** Shows values; `given` is the name of a schedule from elsewhere, `wrong` a field that is. */
  show(values: Values, about: { given?: string; wrong?: Field; usual?: number }): void;
}

/** Makes the form; `change` is told what was chosen. */
export function makeControls(change: (field: Field, value: string) => void): Controls {
  const inputs = new Map<Field, HTMLInputElement | HTMLSelectElement>();
  const given = element("option", { value: "", hidden: true });
  const isWide = matchMedia("(min-width: 900px)").matches;
  const sections = groups.map(({ title, note, fields }, at) => {
    const rows = fields.map(([field, meaning]) => {
      const input = inputFor(field, given), hint = `hint-${field}`;
      input.id = `field-${field}`;
      input.title = meaning;
      input.setAttribute("aria-describedby", hint);
      input.addEventListener("input", () => change(field, input.value));
      inputs.set(field, input);
      return element(
        "div",
        { class: "field" },
        element("label", { for: input.id }, labels[field]),
        input,
        element("small", { id: hint }, meaning),
      );
    });
    return element(
      "details",
      { class: "group", open: isWide || at === 0 },
      element("summary", {}, title),
      ...note ? [element("p", { class: "note" }, note)] : [],
      element("div", { class: "fields" }, ...rows),
    );
  });
  const form = element("form", { class: "controls", "aria-label": "What to look at" }, ...sections);
  form.addEventListener("submit", (event) => event.preventDefault());
  return {
    form,
    searchGroup: sections[sections.length - 1],
    show(values, { given: name, wrong, usual }) {
      given.hidden = name === undefined;
      given.textContent = name ?? "";
      for (const [field, input] of inputs) {
        const value = field === "schedule" && name !== undefined ? "" : values[field];
        if (input.value !== value) input.value = value;
        input.setAttribute("aria-invalid", String(field === wrong));
      }
      const entry = zoo.find((each) => each.name === values.schedule);
      const isShown: Partial<Record<Field, boolean>> = {
        chunks: Boolean(entry?.isChunked) && name === undefined,
        every: values.policy === "every",
      };
      for (const field of ["chunks", "every"] as const) inputs.get(field)!.parentElement!.hidden = !isShown[field];
      inputs.get("microbatches")!.setAttribute("placeholder", usual === undefined ? "" : String(usual));
      inputs.get("chunks")!.setAttribute("placeholder", String(entry?.chunks ?? ""));
    },
  };
}

function inputFor(field: Field, given: HTMLOptionElement): HTMLInputElement | HTMLSelectElement {
  if (field === "schedule") {
    return element(
      "select",
      {},
      given,
      ...zoo.map(({ name, paper }) => element("option", { value: name, title: paper }, name)),
    );
  }
  if (field === "policy") {
    return element(
      "select",
      {},
      ...policies.map((each) => element("option", { value: each.kind, title: each.runs }, spellingOf(each))),
    );
  }
  const isCount = ["devices", "microbatches", "chunks", "every", "width", "budget"].includes(field);
  return element("input", {
    type: "text",
    inputmode: isCount ? "numeric" : undefined,
    autocomplete: "off",
    spellcheck: "false",
    size: 6,
  });
}
