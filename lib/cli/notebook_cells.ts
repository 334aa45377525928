/** Runs the code cells of one notebook in tslab's executor, in Node: what `deno task notebooks` starts, one process a notebook. */
import { readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import process from "node:process";
import { inspect } from "node:util";
import { writeOutput } from "../output.ts";

/** An output of a cell, as nbformat 4.5 has it. */
export type Output =
  | { output_type: "stream"; name: "stdout" | "stderr"; text: string[] }
  | { output_type: "display_data"; data: Record<string, unknown>; metadata: Record<string, unknown> };

/** What this process writes on standard output, a JSON line each. */
export type Message =
  | { cell: number; ok: boolean; outputs: Output[] }
  | { cell: number; note: string };

interface Display {
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
  transient: { display_id?: string };
}

async function run(path: string): Promise<void> {
  const require = createRequire(import.meta.url);
  // tslab watches the sources of what is imported and breaks when they change between two cells: a run needs no news of them.
  const { sys } = createRequire(require.resolve("tslab/dist/converter.js"))("@tslab/typescript-for-tslab");
  sys.watchFile = sys.watchDirectory = () => ({ close() {} });
  const { createConverter } = require("tslab/dist/converter.js");
  const { createExecutor } = require("tslab/dist/executor.js");
  const jupyter = require("tslab/dist/jupyter.js");
  const send = (message: Message) => writeOutput("-", JSON.stringify(message) + "\n");
  const node = createConverter({ isJS: false, isBrowser: false });
  const executor = createExecutor(process.cwd(), { node, close: () => node.close() }, console);
  const cells: { cell_type: string; source: string | string[] }[] = JSON.parse(readFileSync(path, "utf8")).cells;
  for (const [cell, { cell_type, source }] of cells.entries()) {
    if (cell_type !== "code") continue;
    const outputs: Output[] = [];
    const shown = new Map<string, Output & { output_type: "display_data" }>();
    const stream = (name: "stdout" | "stderr") => (chunk: string | Uint8Array) => {
      const text = typeof chunk === "string" ? chunk : new TextDecoder().decode(chunk);
      const last = outputs[outputs.length - 1];
      if (last?.output_type === "stream" && last.name === name) last.text[0] += text;
      else outputs.push({ output_type: "stream", name, text: [text] });
      return true;
    };
    process.stdout.write = stream("stdout") as typeof process.stdout.write;
    process.stderr.write = stream("stderr") as typeof process.stderr.write;
    jupyter.lastWriteDisplayData = ({ data, metadata, transient: { display_id: id } }: Display, update?: boolean) => {
      const known = id === undefined || !update ? undefined : shown.get(id);
      if (known) known.data = data;
      else {
        const output = { output_type: "display_data" as const, data, metadata };
        outputs.push(output);
        if (id !== undefined) shown.set(id, output);
      }
      if (id !== undefined) send({ cell, note: String(data["text/plain"]) });
    };
    let ok: boolean;
    try {
      ok = await executor.execute(typeof source === "string" ? source : source.join(""));
      await new Promise((resolve) => setTimeout(resolve, 0)); // what a cell did not wait for and is ready
    } catch (error) {
      stream("stderr")(inspect(error));
      ok = false;
    }
    send({ cell, ok, outputs });
    if (!ok) break;
  }
  process.exit(0);
}

// A cell that forgets an await fails like any other, here and not in silence.
process.on("unhandledRejection", (error) => {
  writeSync(2, `${inspect(error)}\n`);
  process.exit(1);
});
void run(process.argv[2]);
