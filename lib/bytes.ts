/** Numbers of bytes, as people write them. */
import { UserError } from "./errors.ts";
import { quoted } from "./text.ts";

/**
 * Reads a number of bytes: 1e9, 512MB (powers of 1000: kB, MB, GB, TB), 1.5GiB (powers of 1024: KiB, MiB, GiB, TiB).
 *
 * @throws {UserError} For anything else, and for less than one byte.
 */
export function parseBytes(text: string): number {
  const [, digits, prefix, binary] = /^(\d+(?:\.\d+)?(?:e\d+)?) ?(?:([kmgt])?(i)?b)?$/i.exec(text.trim()) ?? [];
  const power = prefix ? "kmgt".indexOf(prefix.toLowerCase()) + 1 : 0;
  const value = binary && !prefix ? NaN : Math.floor(Number(digits) * (binary ? 1024 : 1000) ** power);
  if (value >= 1 && Number.isFinite(value)) return value;
  throw new UserError(`${quoted(text)} is not a number of bytes such as 1e9, 512MB, 64MiB or 1.5GiB`);
}

/** Three digits and a unit: "24.0 GiB", "7.62 MiB". */
export function formatBytes(bytes: number): string {
  const power = Math.min(3, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  const value = bytes / 1024 ** power;
  return `${value >= 1000 ? value.toFixed(0) : value.toPrecision(3)} ${["B", "KiB", "MiB", "GiB"][power]}`;
}

/** Number of different tokens that text has here, whose tokens are its bytes. */
export const byteVocabulary = 256;
