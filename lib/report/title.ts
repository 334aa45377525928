import type { Figure } from "./style.ts";

/** A figure's title as plain text, if it has one. */
export function titleOf({ layout }: Figure): string | undefined {
  const { text } = (layout?.title ?? {}) as { text?: string };
  return text?.replace(/<[^>]*>/g, " ");
}
