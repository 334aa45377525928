/** What a page says that a program prints, beside what it printed. */

const numbers = /\d+(?:\.\d+)?/g;

/**
 * The first line that differs, in words, or undefined. Blanks at the ends of lines do not count; a number with a decimal point may
 * be off by 2 %, or by one in its last digit where that is more, because devices round differently; all else is compared in full.
 */
export function difference(expected: string, printed: string): string | undefined {
  const [wanted, got] = [expected, printed].map((text) => text.trimEnd().split("\n").map((line) => line.trimEnd()));
  for (let i = 0; i < Math.max(wanted.length, got.length); i++) {
    if (wanted[i] === undefined) return `line ${i + 1} is not expected: "${got[i]}"`;
    if (got[i] === undefined) return `line ${i + 1} is missing: "${wanted[i]}"`;
    if (!matches(wanted[i], got[i])) return `line ${i + 1} is "${got[i]}" and not "${wanted[i]}"`;
  }
}

function matches(wanted: string, got: string): boolean {
  if (wanted.replace(numbers, "0") !== got.replace(numbers, "0")) return false;
  const theirs = got.match(numbers) ?? [];
  return (wanted.match(numbers) ?? []).every((number, i) => {
    if (!number.includes(".")) return number === theirs[i];
    const lastDigit = 10 ** -number.split(".")[1].length;
    return Math.abs(Number(theirs[i]) - Number(number)) <= Math.max(0.02 * Number(number), 1.001 * lastDigit);
  });
}
