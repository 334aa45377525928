import assert from "node:assert/strict";
import { test } from "node:test";
import { markdownPage } from "../../lib/report/markdown_page.ts";

test("sections become headings, paragraphs, images and tables, whose cells cannot end them", () => {
  const figure = { data: [] };
  const table = { columns: ["what", "how much"], rows: [["a|b", 1], ["c", "2 %"]] };
  const sections = [{ heading: "One", text: "A sentence.\n\nAnother.", figure, table }, { heading: "Two" }];
  const text = markdownPage("Title", sections, ({ figure }) => figure ? "one.png" : undefined);
  assert.equal(
    text,
    [
      ...["# Title", "", "## One", "", "A sentence.", "", "Another.", "", "![One](one.png)", ""],
      ...["| what | how much |", "| --- | --- |", "| a\\|b | 1 |", "| c | 2 % |", "", "## Two", ""],
    ].join("\n"),
  );
});
