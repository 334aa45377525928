/** The part of Markdown that the notebooks' prose uses, as HTML. */
import { escape } from "./html.ts";

/** Headings, paragraphs, lists, fenced code; in them code, bold, emphasis and links. */
export function markdownHtml(text: string): string {
  // Fences first: what is in them is no Markdown.
  const parts = text.split(/^```\w*\n([\s\S]*?)^```$/m);
  return parts.map((part, index) => index % 2 === 1 ? `<pre>${escape(part)}</pre>` : blocks(part)).join("\n");
}

function blocks(text: string): string {
  return text.split(/\n\s*\n/).map((block) => block.trim()).filter(Boolean).map((block) => {
    const heading = /^(#{1,4}) (.*)$/.exec(block);
    if (heading) return `<h${heading[1].length}>${inline(heading[2])}</h${heading[1].length}>`;
    const bullet = /^(?:[-*]|\d+\.) /;
    if (!bullet.test(block)) return `<p>${inline(block)}</p>`;
    const items = block.split(/\n(?=(?:[-*]|\d+\.) )/).map((item) => `<li>${inline(item.replace(bullet, ""))}</li>`);
    const tag = /^\d/.test(block) ? "ol" : "ul";
    return `<${tag}>${items.join("\n")}</${tag}>`;
  }).join("\n");
}

function inline(text: string): string {
  return text.split(/(`[^`]+`)/).map((part, index) =>
    index % 2 === 1 ? `<code>${escape(part.slice(1, -1))}</code>` : escape(part)
      .replace(/\[([^\]]+)\]\(((?:https?:|\.{0,2}\/|[\w-])[^)\s]*)\)/g, '<a href="$2">$1</a>')
      .replace(/\*\*([^*]+)\*\*/g, "<strong>$1</strong>")
      .replace(/(^|\W)[_*]([^_*]+)[_*](?=\W|$)/g, "$1<em>$2</em>")
  ).join("");
}
