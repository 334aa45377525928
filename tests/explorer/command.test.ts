/** The command that writes the page. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { program } from "../spawn.ts";

const { run: explorer, close } = program("lib/cli/explorer.ts");
after(close);

test("the command writes one file that asks for nothing else, and refuses what it cannot write", async () => {
  const folder = mkdtempSync(join(tmpdir(), "twobp-explorer-")), file = join(folder, "page.html");
  try {
    const written = await explorer("--out", file);
    assert.equal(written.code, 0, written.stderr);
    assert.match(written.stdout, /^\S+page\.html: \d+ kB; open it in a browser\n$/);
    const page = readFileSync(file, "utf8");
    assert.match(page, /^<!doctype html>/);
    assert.match(page, /Content-Security-Policy" content="default-src 'none'/);
    assert.ok(!/\b(?:src|href)="(?!data:)/.test(page) && !/@import|url\((?!#)/.test(page), "nothing is loaded");
    assert.equal(page.match(/<\/script>/g)?.length, 3, "no text of a script ends it");
    const nowhere = await explorer("--out", join(folder, "none", "page.html"));
    assert.equal(nowhere.code, 2);
    assert.match(nowhere.stderr, /^explorer: Cannot write \S+: there is no directory/);
    const strange = await explorer("--into", file);
    assert.deepEqual([strange.code, strange.stderr], [2, "explorer: unknown option '--into'\n"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
