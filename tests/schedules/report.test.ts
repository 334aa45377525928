import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { page } from "../../lib/report/html.ts";
import { checkOutputs, writeOutput } from "../../lib/output.ts";

function inFolder(run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "twobp-"));
  try {
    run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("writeOutput() writes the whole text and leaves nothing beside it", () => {
  inFolder((folder) => {
    const path = join(folder, "a.json");
    writeOutput(path, "first");
    writeOutput(path, "second ü");
    assert.equal(readFileSync(path, "utf8"), "second ü");
    assert.deepEqual(readdirSync(folder), ["a.json"]);
  });
});

test("writeOutput() writes through a symbolic link and through a device", () => {
  inFolder((folder) => {
    writeFileSync(join(folder, "real"), "old");
    symlinkSync(join(folder, "real"), join(folder, "link"));
    writeOutput(join(folder, "link"), "new");
    assert.equal(readFileSync(join(folder, "real"), "utf8"), "new");
    writeOutput("/dev/null", "gone");
  });
});

test("checkOutputs() explains what cannot be written and leaves nothing behind", () => {
  inFolder((folder) => {
    checkOutputs({ "--json": join(folder, "a"), "--csv": "-", "--html": undefined });
    assert.deepEqual(readdirSync(folder), []);
    const missing = join(folder, "no", "a");
    assert.throws(() => checkOutputs({ "--json": missing }), {
      name: "UserError",
      message: /^Cannot write .*: there is no directory /,
    });
    assert.throws(() => checkOutputs({ "--json": folder }), /it is a directory; give the name of a file/);
    assert.throws(() => checkOutputs({ "--json": "-", "--csv": "-" }), /--json and --csv both write to -/);
    assert.throws(() => checkOutputs({ "--json": "" }), /--json needs the name of a file/);
    assert.throws(() => writeOutput(missing, "text"), /^UserError: Cannot write .*: there is no directory /);
  });
});

test("a page holds its figures, tables and texts without letting any of them end a script or a tag", () => {
  const html = page("A <page>", [{
    heading: "Heads & tails",
    text: "One.\n\nTwo.",
    figure: { data: [{ x: [1], y: [2], text: "</script><b>" }] },
    table: { columns: ["name", "value"], rows: [["<i>", 1.5]] },
  }]);
  assert.match(html, /<title>A &lt;page&gt;<\/title>/);
  assert.match(html, /<p>One\.<\/p>\n<p>Two\.<\/p>/);
  assert.match(html, /<td>&lt;i&gt;<\/td><td class="number">1\.5<\/td>/);
  assert.ok(!html.includes("</script><b>"));
  assert.ok(html.includes("plotly.js v"), "plotly is part of the page");
  assert.ok(!/<(script|link|img)[^>]+(src|href)=/.test(html.replace(/<script>\/\*\*\n\* plotly[^]*?<\/script>/, "")));
});
