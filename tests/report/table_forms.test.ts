import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { tableCsv, tableLatex, tableMarkdown } from "../../lib/report/table_forms.ts";

/** What a reader of RFC 4180 makes of a text. */
function readCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  let cell = "", quoted = false;
  for (let at = 0; at < text.length; at++) {
    const letter = text[at];
    if (quoted && letter === '"' && text[at + 1] === '"') cell += text[++at];
    else if (letter === '"') quoted = !quoted;
    else if (!quoted && (letter === "," || letter === "\n")) {
      rows[rows.length - 1].push(cell);
      cell = "";
      if (letter === "\n") rows.push([]);
    } else cell += letter;
  }
  assert.deepEqual([quoted, cell, rows.pop()], [false, "", []], "every line is ended");
  return rows;
}

test("whatever is in the cells of a CSV is read back as it is", () => {
  const cell = fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(",", '"', "\n", "\r", " ", "=", "a", "-") }));
  const rows = fc.integer({ min: 1, max: 4 }).chain((width) =>
    fc.array(fc.array(cell, { minLength: width, maxLength: width }), { minLength: 1, maxLength: 5 })
  );
  fc.assert(fc.property(rows, ([columns, ...rest]) => {
    assert.deepEqual(readCsv(tableCsv({ columns, rows: rest })), [columns, ...rest]);
  }));
});

test("a CSV has its cells as they are shown, quotes only where they are needed, and no notes", () => {
  const table = { columns: ["a b", "c"], rows: [["x, y", 1.5], ['say "x"', "12.5 %"]], notes: ["A note."] };
  assert.equal(tableCsv(table), 'a b,c\n"x, y",1.5\n"say ""x""",12.5 %\n');
});

test("what would be markup in a Markdown table is escaped; numbers stand on the right, notes below", () => {
  const table = {
    columns: ["a|b", "gain"],
    rows: [["*x* <b> `c` [l](u) a_b \\", "1.5"], ["two\nlines", "-"]],
    notes: ["a|b: a note."],
  };
  assert.equal(
    tableMarkdown(table, { about: "bench --json x --> y" }),
    "<!-- bench --json x -- > y -->\n\n" +
      "| a\\|b | gain |\n| --- | ---: |\n" +
      "| \\*x\\* \\<b> \\`c\\` \\[l\\](u) a\\_b \\\\ | 1.5 |\n" +
      "| two\\\\u000alines | - |\n" +
      "\na\\|b: a note.\n",
  );
});

test("every special of LaTeX is escaped, minus signs and ranges are set as such, and booktabs draws the rules", () => {
  const table = {
    columns: ["name & co", "off", "95 % interval"],
    rows: [["[a_b]", "-1.5 %", "0.9 - 1.1"], ['*{x}^~$#\\|<>"', "-", "-1 - -2"]],
    notes: ["a_b: the quartiles include 1."],
  };
  assert.equal(
    tableLatex(table, { about: "commit 1 with\nchanges" }),
    String.raw`% commit 1 with\u000achanges
\begin{tabular}{lrl}
\toprule
name \& co & off & 95 \% interval \\
\midrule
{[}a\_b] & $-$1.5 \% & 0.9--1.1 \\
{*}\{x\}\textasciicircum{}\textasciitilde{}\$\#\textbackslash{}\textbar{}\textless{}\textgreater{}{''} & -- & $-$1--$-$2 \\
\bottomrule
\end{tabular}

\smallskip
{\small a\_b: the quartiles include 1.\par}
`,
  );
});

test("letters that TeX would join to another character stay two", () => {
  const [cell] = tableLatex({ columns: ["x"], rows: [["--a ---b ``c'' ,,d !`e ?`f, - g"]] }).split("\n").slice(4);
  assert.equal(cell, "-{}-a -{}-{}-b `{}`c'{}' ,{},d !{}`e ?{}`f,--g \\\\");
});
