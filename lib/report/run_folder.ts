/** All that a run gives, in one folder: numbers, page, tables and figures, each in every form. */
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { cannotLoad } from "../optional.ts";
import { writeFolder } from "../output.ts";
import { page, type Section } from "./html.ts";
import { figureForms, tableForms } from "./save.ts";

/** What a run gives. */
export interface RunFolder {
  /** Of the page. */
  readonly title: string;
  /** Each figure and each table becomes files of its section's name. */
  readonly sections: readonly Section[];
  /** How the run came to be: command, versions, machine. */
  readonly about: string;
  /** Other files by name, the numbers as `report.json` among them. */
  readonly files: Readonly<Record<string, string>>;
}

/**
 * Writes a folder with a page, `index.html`, the same as Markdown, `index.md`, every table as `.csv`, `.md` and `.tex`, every figure as `.svg`, `.pdf` and `.png`, and the
 * other files; nothing is left of it where one cannot be written.
 *
 * @throws {UserError} When it cannot be written.
 */
export async function writeRunFolder(path: string, { title, sections, about, files }: RunFolder): Promise<void> {
  const names = fileNames(sections.map(({ heading, name = heading }) => name));
  await writeFolder(path, async (folder) => {
    const write = (name: string, content: string | Uint8Array) => writeFileSync(join(folder, name), content);
    for (const [name, content] of Object.entries(files)) write(name, content);
    write("index.html", page(title, sections, about));
    write("index.md", summary(title, sections, names, about));
    for (const [index, { table, figure }] of sections.entries()) {
      if (table) {
        for (const [ending, form] of Object.entries(tableForms)) write(names[index] + ending, form(table, { about }));
      }
      if (!figure) continue;
      for (const [ending, form] of Object.entries(figureForms)) {
        write(names[index] + ending, await form(figure, { about }));
      }
    }
  });
}

/** The sections as Markdown, with the figures that lie beside it. */
function summary(title: string, sections: readonly Section[], names: readonly string[], about: string): string {
  const parts = sections.flatMap(({ heading, text, figure, table }, index) => [
    `## ${heading}`,
    ...text ? [text] : [],
    ...figure ? [`![${heading}](${names[index]}.png)`] : [],
    ...table ? [tableForms[".md"](table, {}).trimEnd()] : [],
  ]);
  return `${[`# ${title}`, ...parts, about].join("\n\n")}\n`;
}

/**
 * Looks before a run whether its figures can be written after it.
 *
 * @throws {UserError} Names the package that is not installed.
 */
export function checkFigurePackages(): void {
  const require = createRequire(import.meta.url);
  for (const name of ["jsdom", "plotly.js-dist-min", "@resvg/resvg-js", "pdfkit", "svg-to-pdfkit"]) {
    try {
      require.resolve(name);
    } catch (error) {
      throw cannotLoad(name, "Figures are drawn through", error);
    }
  }
}

/** Texts as names of files: small letters, digits and hyphens, no two the same. */
export function fileNames(texts: readonly string[]): string[] {
  const taken = new Set<string>(["report", "index", "schedule", "trace"]);
  return texts.map((text) => {
    const words = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 80).replace(/^-|-$/g, "") ||
      "section";
    let name = words;
    for (let count = 2; taken.has(name); count++) name = `${words}-${count}`;
    taken.add(name);
    return name;
  });
}
