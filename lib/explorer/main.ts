/** The script of the page, and of its worker: one text serves both, so that the page needs no second file. */
import { openPage } from "./page.ts";
import { serve } from "./search_worker.ts";

if (typeof document === "undefined") serve(globalThis as unknown as Parameters<typeof serve>[0]);
else openPage(document.currentScript?.textContent ?? "");
