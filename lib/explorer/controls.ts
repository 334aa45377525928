/** The form: what can be chosen, in groups. */
import { zoo } from "../schedules/generators/zoo.ts";
import { policies, spellingOf } from "../schedules/transforms/policy.ts";
import { element } from "./dom.ts";
import { type Field, labels, type Values } from "./settings.ts";

/** A group of the form. */
interface Group {
  readonly title: string;
  /** Whether it says what the simulator is to reckon with, and nothing of what runs. */
  readonly isSimulated?: true;
  readonly note?: string;
  readonly fields: readonly (readonly [field: Field, meaning: string])[];
}

const perStage = "one value for all stages, or one for each: 1,1,2,1";

const groups: readonly Group[] = [
  {
    title: "Schedule",
    fields: [
      ["schedule", ""],
      ["devices", "1 to 64"],
      ["microbatches", "in a step"],
      ["chunks", ""],
      ["ranges", "each with its W"],
    ],
  },
  {
    title: "2BP",
    note: "when the weight gradients run, and how many micro-batches one takes at most",
    fields: [["policy", ""], ["every", "pending at once"], ["width", ""]],
  },
  {
    title: "Time of actions",
    isSimulated: true,
    note: perStage,
    fields: [
      ["f", "forward"],
      ["i", "input gradient"],
      ["w", "weight gradient"],
      ["b", "full backward"],
      ["r", "of I and B, run ahead"],
    ],
  },
  {
    title: "Links",
    isSimulated: true,
    note: "of a message; one value for all, or one for each link from a rank to the next",
    fields: [["latency", "to its first byte"], ["transfer", "from then on"]],
  },
  {
    title: "Memory",
    isSimulated: true,
    note: perStage,
    fields: [
      ["activations", "from F on"],
      ["released", "of these by I"],
      ["derivatives", "from I to W"],
      ["recomputed", "from R to I"],
      ["cap", "for each rank"],
    ],
  },
  {
    title: "Search",
    isSimulated: true,
    note: "the fastest schedule of these stages on these ranks under the cap, each backward whole or split",
    fields: [["budget", "at most"]],
  },
];

/** What the form says besides its values. */
export interface About {
  /** The name of a schedule from elsewhere. */
  readonly given?: string;
  /** A field that is wrong. */
  readonly wrong?: Field;
  /** The usual number of micro-batches. */
  readonly usual?: number;
  /** Whether the schedule is split by itself, so that no policy applies. */
  readonly isSplit: boolean;
}

/** The form on the page. */
export interface Controls {
  readonly form: HTMLFormElement;
  /** The group of the search, for what belongs to it besides. */
  readonly searchGroup: HTMLElement;
  /** Shows values, and what is to be said of them. */
  show(values: Values, about: About): void;
}

/** Makes the form; `change` is told what was chosen or typed. */
export function makeControls(change: (field: Field, value: string, typed: boolean) => void): Controls {
  const inputs = new Map<Field, HTMLInputElement | HTMLSelectElement>();
  const given = element("option", { value: "", hidden: true });
  const paper = element("p", { class: "note", id: "paper" });
  const isWide = matchMedia("(min-width: 900px)").matches;
  const sections = groups.map(({ title, isSimulated, note, fields }, at) => {
    const rows = fields.map(([field, meaning]) => {
      const input = inputFor(field, given);
      input.id = `field-${field}`;
      input.addEventListener("input", () => change(field, input.value, input instanceof HTMLInputElement));
      inputs.set(field, input);
      return element(
        "div",
        { class: field === "schedule" || field === "policy" ? "field choice" : "field" },
        element("label", { for: input.id }, labels[field], " ", element("small", {}, meaning)),
        input,
      );
    });
    return element(
      "details",
      { class: isSimulated ? "group simulated" : "group", open: isWide || at === 0 },
      element("summary", {}, title),
      ...note ? [element("p", { class: "note" }, note)] : [],
      element("div", { class: "fields" }, ...rows),
      ...at === 0 ? [paper] : [],
    );
  });
  const form = element("form", { class: "controls", "aria-label": "What to look at" }, ...sections);
  form.addEventListener("submit", (event) => event.preventDefault());
  return {
    form,
    searchGroup: sections[sections.length - 1],
    show(values, { given: name, wrong, usual, isSplit }) {
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
      paper.textContent = name === undefined ? entry?.paper ?? "" : "From elsewhere: another choice here replaces it";
      for (const field of ["policy", "every", "width"] as const) inputs.get(field)!.disabled = isSplit;
      inputs.get("policy")!.title = isSplit ? "This schedule is split by itself: no policy applies" : "";
      inputs.get("microbatches")!.setAttribute("placeholder", usual === undefined ? "" : String(usual));
      inputs.get("chunks")!.setAttribute("placeholder", String(entry?.chunks ?? ""));
      inputs.get("b")!.setAttribute("placeholder", "I + W");
      inputs.get("r")!.setAttribute("placeholder", "none");
      inputs.get("cap")!.setAttribute("placeholder", "none");
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
