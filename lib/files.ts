/**
 * Files and folders that are there whole or not at all: made under a temporary name and then renamed. What a killed process
 * leaves is found by its name and removed by the next one that writes the same file.
 */
import { closeSync, mkdirSync, openSync, readdirSync, renameSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";

/** What is being made at this moment; an exit, after Ctrl-C for example, removes it. */
const unfinished = new Set<string>();
let made = 0;
let watching = false;

/** A name beside `target` that says whose it is: the file's, this machine's and this process's. */
export function temporaryName(target: string): string {
  // A name may have 255 bytes.
  return join(dirname(target), `${prefixOf(target)}${hostname().slice(0, 60)}.${process.pid}.${made++}.tmp`);
}

const prefixOf = (target: string) => `.${basename(target).slice(0, 40)}.`;

function begin(target: string): string {
  if (!watching) process.on("exit", removeUnfinished);
  watching = true;
  sweep(target);
  const name = temporaryName(target);
  unfinished.add(name);
  return name;
}

function removeUnfinished(): void {
  for (const name of unfinished) rmSync(name, { recursive: true, force: true });
}

function end(name: string): void {
  try {
    rmSync(name, { recursive: true, force: true });
  } catch {
    // The next one that writes here removes it.
  }
  unfinished.delete(name);
}

/** Writes a file through `write`, which is given a descriptor; where that fails, all is as it was. */
export function writeFileWhole(target: string, write: (file: number) => void, mode = 0o666): void {
  const name = begin(target);
  try {
    const file = openSync(name, "wx", mode);
    try {
      write(file);
    } finally {
      closeSync(file);
    }
    renameSync(name, target);
  } finally {
    end(name);
  }
}

/**
 * Makes a folder, for this user alone unless `mode` says otherwise, through `fill`, and puts it in the place of what is there, unless another process
 * has been faster and `isGood` finds its folder good. The temporary name is as for `kin`, a path beside it: what a killed process has left of
 * one is removed by whoever makes another of the same kin.
 */
export async function makeFolderWhole(
  target: string,
  fill: (folder: string) => Promise<unknown> | void,
  isGood: () => Promise<boolean>,
  mode = 0o700,
  kin = target,
): Promise<void> {
  const name = begin(kin);
  const old = begin(kin);
  try {
    mkdirSync(name, { mode });
    await fill(name);
    for (let attempt = 0; !moved(name, target); attempt++) {
      if (await isGood()) return;
      if (attempt === 3) throw new Error("it cannot be put in its place");
      moved(target, old); // not written over: another process may be using it
    }
  } finally {
    end(name);
    end(old);
  }
}

/** Removes a folder, as of one moment: nobody sees half of it. `kin` as in {@link makeFolderWhole}. */
export function removeFolderWhole(target: string, kin = target): void {
  const name = begin(kin);
  try {
    renameSync(target, name);
  } finally {
    end(name);
  }
}

/** Renames; `false` where there is something at `to`, or nothing at `from`. */
function moved(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    const { code = "" } = error as { code?: string };
    if (["ENOTEMPTY", "EEXIST", "ENOTDIR", "ENOENT"].includes(code)) return false;
    throw error;
  }
}

/** Removes what killed processes of this machine began beside `target`, for `target`. */
function sweep(target: string): void {
  const start = `${prefixOf(target)}${hostname().slice(0, 60)}.`;
  try {
    for (const name of readdirSync(dirname(target))) {
      if (!name.startsWith(start) || !name.endsWith(".tmp")) continue;
      const pid = Number(/^(\d+)\.\d+\.tmp$/.exec(name.slice(start.length))?.[1]);
      const path = join(dirname(target), name);
      // Numbers of processes are given again: this one's may have been another's.
      const isOurs = pid === process.pid && unfinished.has(path);
      if (Number.isInteger(pid) && !isOurs && (pid === process.pid || !isRunning(pid))) {
        rmSync(path, { recursive: true, force: true });
      }
    }
  } catch {
    // A folder that cannot be read or written: what is written next says so.
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code !== "ESRCH";
  }
}

const problems: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "a part of the path is no directory",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file would be too large",
  ENAMETOOLONG: "the name is too long",
  ELOOP: "its links go in a circle",
};

/** What is wrong with a file, in words: from the error that the system gave. */
export function fileProblem(error: unknown): string {
  return problems[(error as { code?: string }).code ?? ""] ?? (error as Error).message.replace(/\s*\n\s*/g, " ");
}
