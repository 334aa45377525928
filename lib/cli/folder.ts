/** A folder of results: the report, a page, a summary and the figures. */
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { checkOutputs, writeOutput } from "../output.ts";
import { page, type Section } from "../report/html.ts";
import { markdownPage } from "../report/markdown_page.ts";
import { figurePng } from "../report/png.ts";
import { shown } from "../text.ts";

/** Where a command writes all that it found. */
export interface Folder {
  /** Writes a text file. */
  write(name: string, text: string): void;
  /** Writes sections as `NAME.html` and `NAME.md`, and their figures as PNG. */
  sections(name: string, title: string, sections: readonly Section[]): Promise<void>;
}

/**
 * The folder that `flag` names; it is made when something is written, and what is in it already stays, but for files of the same names.
 *
 * @throws {UserError} Where it cannot be made or written to; nothing is made then.
 */
export function openFolder(flag: string, path: string): Folder {
  const found = kindOf(path);
  if (path === "-" || found === "other") {
    throw new UserError(`${flag} needs the name of a folder; ${shown(path)} is none`);
  }
  checkOutputs({ [flag]: found === "folder" ? join(path, "paper.json") : path });
  const write = (name: string, content: string | Iterable<Uint8Array>) => {
    mkdirSync(path, { recursive: true });
    writeOutput(join(path, name), content);
  };
  return {
    write,
    async sections(name, title, sections) {
      write(`${name}.html`, page(title, sections));
      const images = new Map<Section, string>();
      for (const section of sections) {
        if (!section.figure) continue;
        const image = `${section.heading.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.png`;
        images.set(section, image);
        write(image, [await figurePng(section.figure, { scale: 2 })]);
      }
      write(`${name}.md`, markdownPage(title, sections, (section) => images.get(section)));
    },
  };
}

/** What stands under a path; a path that leads nowhere is refused where its parent is looked at. */
function kindOf(path: string): "folder" | "other" | "nothing" {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat ? stat.isDirectory() ? "folder" : "other" : "nothing";
  } catch {
    return "nothing";
  }
}
