/**
 * Folders of checkpoints, `step-000120` each: written beside under a temporary name, put on the disk, and renamed. What a kill or a full disk
 * leaves has no such name, and what is damaged later is found by its digests.
 */
import { createHash } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { fileProblem, makeFolderWhole, removeFolderWhole } from "../files.ts";
import { statOf } from "../weights/files.ts";
import { isObject, parseJson } from "../weights/json.ts";

/** The JSON of a checkpoint: what its files are, and all that is no tensor. */
export const descriptionFile = "training.json";

/** What a description says, besides its files and its digest. */
export type Description = Readonly<Record<string, unknown>>;

/** A file to be written: its bytes, piece by piece. */
export type Content = Iterable<Uint8Array<ArrayBuffer>>;

/** A checkpoint whose files are all there as they were written. */
export interface Whole {
  readonly path: string;
  readonly description: Description;
}

/** Temporary names are of this kin, whichever step they are for. */
const kinOf = (folder: string) => join(folder, "checkpoint");

const nameOf = (step: number) => `step-${String(step).padStart(6, "0")}`;

const largestPiece = 2 ** 22;

/** The numbers of the steps that a folder has checkpoints of, whole or not, the last first. */
export function stepsIn(folder: string): number[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return [];
    throw new UserError(`Cannot read ${folder}: ${fileProblem(error)}`);
  }
  return names.map((name) => /^step-(\d{6,15})$/.exec(name)?.[1] ?? "").filter(Boolean).map(Number)
    .toSorted((one, other) => other - one);
}

/** The path of a step's checkpoint. */
export const checkpointPath = (folder: string, step: number) => join(folder, nameOf(step));

/**
 * Makes a folder where checkpoints are to be, and finds out whether that can be written to.
 *
 * @throws {UserError} When it cannot.
 */
export function prepareFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw cannotWrite(folder, error);
  }
}

/**
 * Writes a checkpoint, and then removes all but the last `keep` whole ones before it. Other work goes on between the pieces.
 *
 * @throws {UserError} When it cannot be written, or there is a whole one of this step: nothing is left of it then, and the others are as they were.
 */
export async function writeCheckpoint(
  folder: string,
  step: number,
  files: Readonly<Record<string, Content>>,
  description: Description,
  keep = Infinity,
): Promise<string> {
  prepareFolder(folder);
  const target = checkpointPath(folder, step);
  const fill = async (made: string) => {
    const written: Record<string, { bytes: number; sha256: string }> = {};
    for (const [name, content] of Object.entries(files)) written[name] = await writeFile(join(made, name), content);
    const said = { ...description, files: written };
    const text = JSON.stringify({ ...said, sha256: digestOf(JSON.stringify(said)) }, null, 2) + "\n";
    await writeFile(join(made, descriptionFile), [new TextEncoder().encode(text)]);
    await settle(made);
  };
  const refuseWhole = () => {
    if (typeof look(target) === "string") return Promise.resolve(false); // a damaged one makes room
    throw new UserError(
      `There is a checkpoint ${target}, and another is not written over it: remove it, or give another folder`,
    );
  };
  try {
    await makeFolderWhole(target, fill, refuseWhole, 0o777, kinOf(folder));
    await settle(folder);
  } catch (error) {
    throw (error as { code?: string }).code === undefined ? error : cannotWrite(target, error);
  }
  prune(folder, step, keep);
  return target;
}

/** Removes the oldest up to this step, so that `keep` are left; damaged ones are no loss. */
function prune(folder: string, step: number, keep: number): void {
  for (const old of stepsIn(folder).filter((each) => each <= step).slice(keep)) {
    try {
      removeFolderWhole(checkpointPath(folder, old), kinOf(folder));
    } catch {
      // One too many is no harm: the next one that is written tries again.
    }
  }
}

/**
 * The last whole checkpoint of a folder, or that which the folder itself is; nothing where there is none.
 *
 * @param damaged Is given what was passed over, in words.
 */
export function lastWhole(folder: string, damaged: string[] = []): Whole | undefined {
  const paths = statOf(join(folder, descriptionFile))
    ? [folder]
    : stepsIn(folder).map((step) => checkpointPath(folder, step));
  for (const path of paths) {
    const found = look(path);
    if (typeof found !== "string") return { path, description: found };
    damaged.push(`${path}: ${found}`);
  }
}

/** What a checkpoint says where it is whole; in words what is wrong with it, where it is not. */
function look(path: string): Description | string {
  let said: unknown;
  try {
    said = parseJson(readFileSync(join(path, descriptionFile)));
  } catch (error) {
    const isOfTheFile = (error as { code?: string }).code !== undefined; // or of what is in it, in words that go on from the name
    return `${descriptionFile}${isOfTheFile ? ":" : ""} ${fileProblem(error)}`;
  }
  if (!isObject(said) || !isObject(said.files)) return `${descriptionFile} names no files`;
  const { sha256, ...rest } = said;
  if (digestOf(JSON.stringify(rest)) !== sha256) return `${descriptionFile} is not as it was written`;
  for (const [name, entry] of Object.entries(said.files)) {
    const { bytes, sha256: digest } = entry as { bytes: number; sha256: string };
    try {
      const { size } = statSync(join(path, name));
      if (size !== bytes) return `${name} has ${size} bytes of ${bytes}`;
      if (digestOfFile(join(path, name)) !== digest) return `${name} is not as it was written`;
    } catch (error) {
      return `${name}: ${fileProblem(error)}`;
    }
  }
  return said;
}

const digestOf = (text: string) => createHash("sha256").update(text).digest("hex");

function digestOfFile(path: string): string {
  const hash = createHash("sha256"), piece = new Uint8Array(largestPiece), file = openSync(path, "r");
  try {
    for (let count; (count = readSync(file, piece, 0, piece.length, null)) > 0;) hash.update(piece.subarray(0, count));
  } finally {
    closeSync(file);
  }
  return hash.digest("hex");
}

/** Writes a file down to the disk. */
async function writeFile(path: string, content: Content): Promise<{ bytes: number; sha256: string }> {
  const file = await open(path, "wx"), hash = createHash("sha256");
  let bytes = 0;
  try {
    for (const whole of content) {
      for (let at = 0; at < whole.length;) {
        const piece = whole.subarray(at, at + largestPiece);
        const { bytesWritten } = await file.write(piece);
        hash.update(piece.subarray(0, bytesWritten));
        at += bytesWritten;
      }
      bytes += whole.length;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return { bytes, sha256: hash.digest("hex") };
}

/** Puts a folder's list of names on the disk, where the system can. */
async function settle(folder: string): Promise<void> {
  try {
    const opened = await open(folder, "r");
    try {
      await opened.sync();
    } finally {
      await opened.close();
    }
  } catch {
    // Windows opens no folders.
  }
}

const cannotWrite = (path: string, error: unknown) => new UserError(`Cannot write ${path}: ${fileProblem(error)}`);
