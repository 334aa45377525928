/** The pages that the npm package brings along, so that the links of its README lead somewhere. */
import { cpSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** A link of Markdown: its text, and its target without a heading. */
const link = /\[([^\]]*)\]\(([^)\s#]+)(?:#[^)\s]*)?\)/g;

/** Pages, their pictures and the examples. Not notebooks (megabytes), results and sources. */
const comesAlong = (path: string) =>
  path === "examples" || statSync(path).isFile() && /\.(md|png|svg|cff)$|^LICENSE$|^examples\//.test(path);

/**
 * Copies README and, from link to link, what it leads to into a folder, by the same paths; a link to what stays behind becomes its
 * text. Returns what stands there now.
 */
export function copyPages(folder: string): readonly string[] {
  const found = new Set(["README.md"]);
  for (const page of found) { // grows meanwhile
    mkdirSync(join(folder, dirname(page)), { recursive: true });
    if (!page.endsWith(".md")) {
      cpSync(page, join(folder, page), { recursive: true });
      continue;
    }
    const text = readFileSync(page, "utf8").replace(link, (whole, label: string, target: string) => {
      const path = normalize(join(dirname(page), target));
      if (/^[a-z]+:/.test(target) || !existsSync(path)) return whole; // somebody else's, or no link but code
      if (!comesAlong(path)) return label;
      found.add(path);
      return whole;
    });
    writeFileSync(join(folder, page), text);
  }
  return [...found].sort();
}
