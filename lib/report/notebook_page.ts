/** A notebook as a page to read: prose, code and outputs, its figures alive. */
import { escape, footHtml, frame } from "./html.ts";
import { markdownHtml } from "./markdown.ts";
import type { Figure } from "./style.ts";

/** What a page needs of a notebook in nbformat 4.5. */
export interface ReadableNotebook {
  /** Prose and code, in order. */
  readonly cells: readonly {
    readonly cell_type: string;
    readonly source: string | readonly string[];
    readonly outputs?: readonly {
      readonly output_type: string;
      readonly text?: readonly string[];
      readonly data?: Readonly<Record<string, unknown>>;
    }[];
  }[];
}

/** The page of a notebook with its outputs, self-contained like those of `writePage()`; `about` is its foot. */
export function notebookPage(title: string, { cells }: ReadableNotebook, about?: string): string {
  const figures: Figure[] = [];
  const output = ({ text, data }: { text?: readonly string[]; data?: Readonly<Record<string, unknown>> }): string => {
    const figure = data?.["application/vnd.plotly.v1+json"] as Figure | undefined;
    if (figure) {
      const height = Number(figure.layout?.height ?? 450);
      return `<div id="figure-${figures.push(figure) - 1}" style="height: ${height}px"></div>`;
    }
    const html = data?.["text/html"];
    // Tables are made by this library, which escapes their texts.
    return html ? joined(html) : `<pre class="output">${escape(joined(text ?? data?.["text/plain"] ?? ""))}</pre>`;
  };
  const body = cells.map(({ cell_type, source, outputs = [] }) =>
    cell_type === "markdown"
      ? markdownHtml(joined(source)).replace(/href="([\w-]+)\.ipynb"/g, 'href="$1.html"') // pages stand side by side too
      : `<pre>${escape(joined(source))}</pre>\n${outputs.map(output).join("\n")}`
  ).join("\n");
  return frame(title, body + footHtml(about), figures, "");
}

const joined = (text: unknown) => Array.isArray(text) ? text.join("") : String(text);
