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

/** Leaves out the middle of a text that has more than `most` characters. */
function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const tail = Math.floor((most - 3) / 3);
  // No half of a character that takes two units.
  const head = text.slice(0, most - 3 - tail).replace(/[\ud800-\udbff]$/, "");
  return `${head}...${text.slice(text.length - tail).replace(/^[\udc00-\udfff]/, "")}`;
}

/** A text for a message: its middle left out where it is longer than `most` characters, and {@link escaped}. */
export function shown(text: string, most = 200): string {
  return escaped(cut(text, most));
}

/** A name for a message: the same in double quotes, as JSON writes a string, at most 100 characters of it. */
export function quoted(text: string): string {
  return escaped(JSON.stringify(cut(text, 100)));
}
