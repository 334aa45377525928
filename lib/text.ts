/**
 * Text from outside (cells of a file, names of files and tensors, arguments, reasons of other programs) made fit to be
 * shown: short, on one line, and without characters that a terminal obeys or nobody sees.
 *
 * @module
 */

/**
 * Control characters (C0, DEL and C1, so that no escape sequence starts), line and paragraph separators, half surrogates,
 * and whatever is invisible: directions, zero widths, soft hyphens, tags, fillers.
 */
const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/** Writes characters that a terminal obeys or nobody sees as `\u001b` or `\u{e0041}`; the rest stays as it is. */
export function escaped(text: string): string {
  return text.replace(unseen, (character) => {
    const code = character.codePointAt(0)!;
    return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** At most `most` characters of a text: its start, three dots and the last `tail` of it. */
function cut(text: string, most: number, tail = 0): string {
  if (text.length <= most) return text;
  // No half of a character that takes two units.
  const head = text.slice(0, most - 3 - tail).replace(/[\ud800-\udbff]$/, "");
  return `${head}...${text.slice(text.length - tail).replace(/^[\udc00-\udfff]/, "")}`;
}

/** A text for a message, {@link escaped}; one longer than `most` characters loses its middle. */
export function shown(text: string, most = 200): string {
  return escaped(cut(text, most, Math.floor(most / 3)));
}

/** The first line of what an error says, for a message. */
export function firstLine(error: unknown): string {
  return shown((error instanceof Error ? error.message : String(error)).trim().split("\n", 1)[0]);
}

/** A name for a message, in double quotes as JSON writes a string and {@link escaped}; a long one loses its end. */
export function quoted(text: string): string {
  return escaped(JSON.stringify(cut(text, 100)));
}
