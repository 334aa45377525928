/**
 * Fails when a link of a Markdown file leads nowhere, a relative path or a heading, and prints where. Of this tree, or of a folder
 * that is given, such as the package where it is installed.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";

function pages(): string[] {
  const folder = process.argv[2];
  if (folder) {
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
    return files.filter((file) => file.endsWith(".md")).map((file) => join(folder, file));
  }
  const kinds = ["--cached", "--others", "--exclude-standard"];
  return execFileSync("git", ["ls-files", ...kinds, "*.md"], { encoding: "utf8" })
    .split("\n").filter((file) => file && existsSync(file));
}

/** Without blocks and spans of code, where a bracket is no link. */
const prose = (text: string) => text.replace(/^ *```.*?^ *```/gms, "").replace(/`[^`\n]*`/g, "`");

/** Names of headings, as GitHub makes them: small letters, digits, `_` and `-`, spaces as `-`, a number where one comes again. */
function anchorsOf(file: string): Set<string> {
  const seen = new Map<string, number>(), anchors = new Set<string>();
  for (const [, heading] of readFileSync(file, "utf8").replace(/^ *```.*?^ *```/gms, "").matchAll(/^#+ +(.*)$/gm)) {
    const shown = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
    const anchor = shown.trim().toLowerCase().replace(/[^\p{L}\p{N}_ -]/gu, "").replaceAll(" ", "-");
    const before = seen.get(anchor) ?? 0;
    seen.set(anchor, before + 1);
    anchors.add(before ? `${anchor}-${before}` : anchor);
  }
  return anchors;
}

const faults: string[] = [];
let count = 0;
for (const file of pages()) {
  const text = prose(readFileSync(file, "utf8"));
  for (const [, target] of text.matchAll(/\]\(([^)\s]+)(?: "[^"]*")?\)/g)) {
    if (/^[a-z]+:/.test(target)) continue; // somebody else's
    count++;
    const [path, anchor] = target.split("#");
    const found = path ? join(dirname(file), path) : file;
    if (!existsSync(found)) faults.push(`${file}: there is no ${found}`);
    else if (anchor !== undefined && (statSync(found).isDirectory() || !anchorsOf(found).has(anchor))) {
      faults.push(`${file}: ${found} has no heading #${anchor}`);
    }
  }
}
if (count === 0) faults.push("There are no links");
if (faults.length) {
  console.error(faults.join("\n"));
  process.exit(1);
}
console.log(`${count} links lead somewhere.`);
