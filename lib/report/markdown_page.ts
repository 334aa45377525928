/** The sections of a page as Markdown, with figures as images beside it. */
import type { Section, Table } from "./html.ts";

/**
 * Sections as Markdown.
 *
 * @param imageOf The file name of a section's figure; undefined for one without.
 */
export function markdownPage(
  title: string,
  sections: readonly Section[],
  imageOf: (section: Section) => string | undefined,
): string {
  const parts = sections.flatMap((section) => {
    const image = imageOf(section);
    return [
      `## ${section.heading}`,
      ...section.text ? [section.text] : [],
      ...image ? [`![${section.heading}](${image})`] : [],
      ...section.table ? [tableMarkdown(section.table)] : [],
    ];
  });
  return `${[`# ${title}`, ...parts].join("\n\n")}\n`;
}

function tableMarkdown({ columns, rows }: Table): string {
  const line = (cells: readonly (string | number)[]) =>
    `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(columns), line(columns.map(() => "---")), ...rows.map(line)].join("\n");
}
