/** The search on the page: its button, how far it is, and what it found. The work is done by a worker, out of this very script. */
import { button, element } from "./dom.ts";
import type { Answer, Found, Order, Question } from "./search_worker.ts";
import { time } from "./why.ts";

/** The search on the page. */
export interface Searching {
  readonly parts: readonly HTMLElement[];
  /** Ends a search whose question has changed, and says no more of one that has ended. */
  abandon(): void;
}

/**
 * Makes the search.
 *
 * @param script The text of the page's script.
 * @param ask What to search for; throws a UserError where that is nothing to search for.
 * @param found Told what came out.
 */
export function makeSearching(
  script: string,
  ask: () => Question,
  found: (result: Found) => void,
): Searching {
  const start = button("Search", "Search for the fastest schedule under the cap", toggle);
  start.id = "search";
  const bar = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Candidates looked at" });
  const status = element("p", { class: "status", role: "status", id: "search-status" });
  let worker: Worker | undefined, address = "";

  function end(text: string): void {
    worker?.terminate();
    worker = undefined;
    URL.revokeObjectURL(address);
    start.textContent = "Search";
    start.disabled = false;
    bar.hidden = true;
    status.textContent = text;
  }

  function toggle(): void {
    if (worker) {
      worker.postMessage("stop" satisfies Order);
      start.disabled = true; // until it has said what it has
      return;
    }
    let order: Question;
    try {
      order = ask();
    } catch (error) {
      return end((error as Error).message);
    }
    address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    worker = new Worker(address);
    worker.onmessage = ({ data }: { data: Answer }) => {
      if ("refused" in data) return end(data.refused);
      if ("found" in data) {
        found(data.found);
        return end(`${time(data.found.makespan)} units. ${data.found.verdict}.`);
      }
      const { done, budget, best, lowerBound } = data.progress;
      bar.value = done / budget;
      status.textContent = `${done} candidates: best ${time(best)}, none below ${time(lowerBound)}`;
    };
    worker.onerror = ({ message }) => end(`The search failed, which is a mistake of this page: ${message}`);
    start.textContent = "Stop";
    bar.hidden = false;
    bar.value = 0;
    status.textContent = "Searching";
    worker.postMessage(order);
  }

  return {
    parts: [start, bar, status],
    abandon: () => end(worker ? "Stopped: something else is asked for now." : ""),
  };
}
