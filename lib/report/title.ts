import type { Figure } from "./style.ts";

/** A figure's title as plain text. */
export function titleOf({ layout }: Figure): string {
  const text = (layout?.title as { text?: string } | undefined)?.text ?? "untitled";
  return text.replace(/<[^>]*>/g, " ");
}
