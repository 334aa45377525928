import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

test("whoever shows no figure and no table and reads no image loads none of jsdom, resvg, plotly, pdfkit, arquero and sharp", async () => {
  const lib = fileURLToPath(new URL("../../lib", import.meta.url));
  const files = readdirSync(lib, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  assert.ok(files.length > 100);
  for (const file of files) {
    const imports = readFileSync(join(lib, file), "utf8").match(/^(im|ex)port (?!type)[^;]*? from "[^"]+"/gm) ?? [];
    for (const each of imports) {
      assert.doesNotMatch(each, /"(jsdom|@resvg|plotly|pdfkit|svg-to-pdfkit|arquero|sharp)/, file);
    }
  }
  await import("../../mod.ts");
  const loaded = Object.keys(createRequire(import.meta.url).cache);
  assert.deepEqual(
    loaded.filter((path) => /node_modules\/(jsdom|@resvg|plotly|pdfkit|svg-to-pdfkit|arquero|sharp)/.test(path)),
    [],
  );
});
