/**
 * One way to show things, wherever the code runs: in a notebook under tslab or the Deno kernel, or in a terminal.
 *
 * @module
 */
import { createRequire } from "node:module";

/** One thing in several forms, by MIME type; the front end shows the richest that it knows. PNGs are in base64. */
export type Bundle = Readonly<Record<string, unknown>> & {
  /** What a terminal shows. */
  readonly "text/plain": string;
};

/** How to show. */
export interface DisplayOptions {
  /** A name for what is shown, so that it can be replaced. */
  id?: string;
  /** Replace what was shown under that name. */
  update?: boolean;
}

interface DisplayData {
  data: Bundle;
  metadata: Record<string, unknown>;
  transient: { display_id?: string };
}

interface DenoJupyter {
  broadcast(type: string, content: DisplayData): Promise<void>;
}

/** Whether what is displayed goes to a notebook. */
export function inNotebook(): boolean {
  return writerOfTslab() !== undefined || denoJupyter() !== undefined;
}

/** Shows a bundle in the notebook, or its text in the terminal. */
export async function display(bundle: Bundle, { id, update = false }: DisplayOptions = {}): Promise<void> {
  const content: DisplayData = { data: bundle, metadata: {}, transient: id ? { display_id: id } : {} };
  const write = writerOfTslab();
  if (write) return write(content, update);
  const deno = denoJupyter();
  if (deno) return await deno.broadcast(update ? "update_display_data" : "display_data", content);
  console.log(bundle["text/plain"]);
}

function denoJupyter(): DenoJupyter | undefined {
  try {
    return (globalThis as unknown as { Deno?: { jupyter?: DenoJupyter } }).Deno?.jupyter;
  } catch {
    return undefined; // outside of its kernel Deno throws
  }
}

/**
 * The function with which tslab writes to the running cell. Its public `display` sends one MIME type only; the module behind it
 * is loaded if and only if tslab is running, so it is looked up and never imported.
 */
function writerOfTslab(): ((content: DisplayData, update: boolean) => void) | undefined {
  const { cache } = createRequire(import.meta.url);
  const path = Object.keys(cache ?? {}).find((path) => /[/\\]tslab[/\\]dist[/\\]jupyter\.js$/.test(path));
  return path ? cache[path]?.exports.lastWriteDisplayData ?? undefined : undefined;
}
