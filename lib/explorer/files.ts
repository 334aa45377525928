/** Schedules from files and to files, and links to what the page shows. */
import { fromCsv, toCsv } from "../schedules/csv/csv.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { shown } from "../text.ts";
import { button, element } from "./dom.ts";
import type { Variant } from "./state.ts";

/** What the page does for files. */
export interface Files {
  /** Takes a schedule from a file. */
  load(schedule: Schedule): void;
  /** The schedule that is shown. */
  scheduleOf(variant: Variant): Schedule;
  /** Says what went wrong. */
  fail(error: unknown): void;
}

/** The buttons. */
export function makeFiles(files: Files): HTMLElement {
  const input = element("input", { type: "file", accept: ".csv,.txt,text/csv", hidden: true, id: "file" });
  input.addEventListener("change", async () => {
    const file = input.files?.[0];
    input.value = ""; // the same file again is a change too
    if (!file) return;
    try {
      files.load(fromCsv(await file.text(), { name: shown(file.name, 60) }));
    } catch (error) {
      files.fail(error);
    }
  });
  const save = (variant: Variant, text: string) =>
    button(text, `Save the schedule ${variant === "base" ? "without" : "with"} 2BP as PyTorch's CSV`, () => {
      try {
        const schedule = files.scheduleOf(variant);
        const name = schedule.name.replace(/\.csv$/, "").replace(/[^\w-]+/g, "-");
        download(`${name}${variant === "split" ? "-2bp" : ""}.csv`, toCsv(schedule), "text/csv");
      } catch (error) {
        files.fail(error);
      }
    });
  return element(
    "details",
    { class: "group" },
    element("summary", {}, "Files"),
    element("p", { class: "note" }, "PyTorch's CSV, a row for each rank"),
    element(
      "div",
      { class: "buttons" },
      button("Load CSV", "Read a schedule from a CSV file", () => input.click()),
      save("base", "Save without 2BP"),
      save("split", "Save with 2BP"),
      input,
    ),
  );
}

/** Has the browser save a text as a file. */
export function download(name: string, text: string, type: string): void {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000); // the browser reads it a moment later
}

/** The button that copies a link, and the link itself where the page may not. */
export function makeLink(): HTMLElement {
  const field = element("input", { type: "text", readonly: true, hidden: true, "aria-label": "Link to what is shown" });
  const copy = button("Copy link", "Copy a link to all that is shown", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      copy.textContent = "Copied";
      setTimeout(() => copy.textContent = "Copy link", 1500);
    } catch {
      field.value = location.href;
      field.hidden = false;
      field.select();
    }
  });
  return element("span", { class: "link" }, copy, field);
}
