import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { execute, format, type Notebook } from "../../lib/cli/notebooks.ts";
import { notebookPage } from "../../lib/report/notebook_page.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = join(root, "notebooks");
const names = readdirSync(folder).filter((name) => name.endsWith(".ipynb"));
const texts = new Map(names.map((name) => [name, readFileSync(join(folder, name), "utf8")]));
const notebooks = new Map([...texts].map(([name, text]) => [name, JSON.parse(text) as Notebook]));
const joined = (source: string | string[]) => typeof source === "string" ? source : source.join("");
const codeOf = ({ cells }: Notebook) => cells.filter(({ cell_type }) => cell_type === "code");

/** A notebook of these cells in a folder from which "twobp" is found. */
const scratch = mkdtempSync(join(folder, ".test-"));
function notebookOf(name: string, sources: string[], where = scratch): { path: string; notebook: Notebook } {
  const cells = sources.map((source, index) => ({
    cell_type: "code" as const,
    id: `cell-${index}`,
    metadata: {},
    source,
    execution_count: null,
    outputs: [],
  }));
  const notebook = { cells, metadata: {}, nbformat: 4, nbformat_minor: 5 };
  const path = join(where, name);
  writeFileSync(path, JSON.stringify(notebook));
  return { path, notebook };
}

/** A copy of the sources, with the packages that are installed here. */
function copyOfTree(): string {
  const copy = join(scratch, "copy");
  for (const name of ["mod.ts", "package.json", "lib", "kernels"]) {
    cpSync(join(root, name), join(copy, name), { recursive: true });
  }
  const packages = (of: string) => join(of, "node_modules");
  mkdirSync(packages(copy));
  for (const name of readdirSync(packages(root))) {
    if (name !== "twobp") symlinkSync(join(packages(root), name), join(packages(copy), name));
  }
  symlinkSync("..", join(packages(copy), "twobp"));
  mkdirSync(join(copy, "notebooks"));
  return copy;
}

after(() => rmSync(scratch, { recursive: true, force: true }));

for (const [name, notebook] of notebooks) {
  test(`${name} imports nothing but the library and Node's own modules`, () => {
    for (const { source } of codeOf(notebook)) {
      for (const [, from] of joined(source).matchAll(/from "([^"]+)"/g)) {
        assert.match(from, /^(twobp(\/\w+)?|arquero|node:\w+)$/, from);
      }
    }
  });

  test(`${name} is kept as it was shown: run once from top to bottom, with outputs and without errors`, () => {
    const cells = codeOf(notebook);
    assert.deepEqual(cells.map(({ execution_count }) => execution_count), cells.map((_, index) => index + 1));
    const outputs = cells.flatMap(({ outputs = [] }) => outputs);
    assert.ok(outputs.length > 0);
    for (const output of outputs) {
      assert.ok(["stream", "display_data"].includes(output.output_type), output.output_type);
      if (output.output_type === "stream") assert.equal(output.name, "stdout", output.text.join(""));
      else if (output.data["application/vnd.plotly.v1+json"]) assert.ok(output.data["image/png"]);
    }
    assert.equal(new Set(notebook.cells.map(({ id }) => id)).size, notebook.cells.length);
  });

  test(`${name} says in the title of each figure whether it is real, virtual, simulated, predicted or traced`, () => {
    for (const output of codeOf(notebook).flatMap(({ outputs = [] }) => outputs)) {
      const figure = output.output_type === "display_data" && output.data["application/vnd.plotly.v1+json"];
      if (!figure) continue;
      const { text } = (figure as { layout: { title: { text: string } } }).layout.title;
      assert.match(text, /\b(real|virtual|simulated|predicted|traced)\b/);
    }
  });

  test(`${name} is written as --write would write it, and holds no machine's paths`, () => {
    assert.equal(texts.get(name), format(notebook));
    assert.doesNotMatch(texts.get(name)!, /\/(home|root|tmp|work|Users)\//);
  });
}

test("cells run in order in one kernel; outputs are kept; what is changed in the library shows without a build", async () => {
  const copy = copyOfTree();
  const file = join(copy, "lib/schedules/generators/naive.ts");
  const before = readFileSync(file, "utf8");
  const after = before.replace(/name: "naive"/, `name: "changed"`);
  assert.notEqual(after, before);
  writeFileSync(file, after);
  const { path, notebook } = notebookOf("outputs.ipynb", [
    `const x: number = 20;\nconsole.log("a");\nconsole.log("b");`,
    `import { adamw, createModel, generate, predictMemory, table } from "twobp";\n` +
    `import { progress } from "twobp/report";\nimport { sizesOf } from "twobp/schedules";\n` +
    `const bar = progress(500);\nfor (let i = 0; i < 500; i++) bar.step();\nbar.done();\n` +
    `await table([{ sum: x + 1, devices: sizesOf(generate("gpipe", { devices: 3 })).devices }]);\n` +
    // What no device is needed for, Node does without one.
    `const naive = generate("naive", { devices: 2 });\n` +
    `const peaks = await predictMemory(createModel("llama-tiny"), naive, 1, { optimizer: adamw() });\n` +
    `console.log(naive.name, peaks.length);`,
  ], join(copy, "notebooks"));
  await execute(path, notebook);
  const [first, second] = notebook.cells;
  assert.deepEqual(first.outputs, [{ output_type: "stream", name: "stdout", text: ["a\n", "b\n"] }]);
  const shown = second.outputs!.map((output) => output.output_type === "display_data" ? output.data : {});
  assert.deepEqual(shown[0], { "text/plain": ["500 steps"] });
  assert.match(joined(shown[1]["text/html"] as string[]), />21<.*>3</s);
  assert.deepEqual(second.outputs![2], { output_type: "stream", name: "stdout", text: ["changed 2\n"] });
  assert.deepEqual([first.execution_count, second.execution_count], [1, 2]);
  const source = "See [what layers keep](../lib/layers/README.md) and [schedules](schedules.ipynb).";
  const cells = [...notebook.cells, { ...first, cell_type: "markdown" as const, source, outputs: [] }];
  const html = notebookPage("outputs", { ...notebook, cells });
  assert.ok(html.includes("500 steps") && html.includes("const x: number = 20;"));
  assert.ok(html.includes(`<a href="../lib/layers/README.md">what layers keep</a> and <a href="schedules.html">`));
});

test("the first failing cell is named with its message, whatever way it fails", async () => {
  const failures: [string, RegExp][] = [
    [`throw new Error("no luck");`, /^failing\d\.ipynb, cell 2 of 3: Error: no luck$/],
    [`const y: number = "text";`, /^failing\d\.ipynb, cell 2 of 3: 1:7 - Type 'string' is not assignable/],
    [`process.exit(3);`, /^failing\d\.ipynb, cell 2 of 3: Node ended with code 3$/],
  ];
  await Promise.all(failures.map(async ([source, message], index) => {
    const { path, notebook } = notebookOf(`failing${index}.ipynb`, ["1;", source, "2;"]);
    await assert.rejects(execute(path, notebook), (error: Error) => message.test(error.message));
  }));
});

test("an unknown notebook is one line and exit code 2", () => {
  const { status, stderr } = spawnSync(process.execPath, [
    ...("Deno" in globalThis ? ["run", "-A", "--no-check"] : ["--import", "tsx"]),
    join(root, "lib/cli/notebooks.ts"),
    "nonsense",
  ], { encoding: "utf8" });
  assert.equal(status, 2);
  assert.match(stderr, /^notebooks: There is no notebook "nonsense"; the notebooks are .*quickstart.*\n$/);
});
