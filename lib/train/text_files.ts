/** Which files a text is read from, and as what. */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { shown } from "../text.ts";
import type { Block } from "./file_blocks.ts";
import { jsonLineBlocks } from "./json_lines.ts";
import { parquetBlocks } from "./parquet.ts";
import { textBlocks } from "./text_blocks.ts";

/** What of a folder is read where nobody says. */
const usual = /\.(txt|md|jsonl|ndjson|parquet)$/i;

/**
 * Files by path: a folder stands for those in it, however deep, whose names match, sorted; hidden ones are passed over.
 *
 * @throws {UserError} When one cannot be read, a folder has none, or a file is of a kind that is none of ours.
 */
export function textFiles(paths: readonly string[], match: RegExp = usual): string[] {
  const files = paths.flatMap((path) => {
    if (!statOf(path).isDirectory()) return [path];
    const found = within(path).filter((file) => match.test(file));
    if (found.length > 0) return found;
    throw new UserError(`${shown(path)} has no files that match ${match}; the option \`match\` says which are read`);
  });
  for (const file of files) {
    const packed = /\.(gz|zst|xz|bz2|zip|7z|tar)$/i.exec(file);
    if (packed) throw new UserError(`${shown(file)} is packed: unpack it first, what is in it is read piece by piece`);
    if (/\.json$/i.test(file)) {
      throw new UserError(
        `${shown(file)} is JSON: JSON lines, one object a line, are read from files named .jsonl or .ndjson`,
      );
    }
    if (!statOf(file).isFile()) throw new UserError(`${shown(file)} is neither a file nor a folder`);
  }
  return files;
}

/** The documents of a file, as its name says what it is: JSON lines, Parquet, or text. */
export function blocksOf(file: string, field: string, size?: number): Promise<Block[]> {
  if (/\.(jsonl|ndjson)$/i.test(file)) return jsonLineBlocks(file, field, size);
  return /\.parquet$/i.test(file) ? parquetBlocks(file, field) : textBlocks(file, size);
}

/** Size of a file. */
export const sizeOfFile = (file: string): number => statOf(file).size;

function statOf(path: string) {
  try {
    return statSync(path);
  } catch (error) {
    throw new UserError(`${shown(path)} cannot be read: ${fileProblem(error)}`);
  }
}

function within(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => !name.startsWith("."))
    .sort((a, b) => a.name < b.name ? -1 : 1)
    .flatMap(({ name }) => {
      const path = join(folder, name);
      return statOf(path).isDirectory() ? within(path) : [path];
    });
}
