/**
 * This user's cache: `twobp` in `XDG_CACHE_HOME`, or in `~/.cache`; where neither can be used, a folder in the system's
 * temporary folder. Libraries are loaded from it, so it is used only where nobody else can have put anything there.
 */
import { chmodSync, existsSync, mkdirSync, realpathSync, type Stats, statSync } from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import process from "node:process";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";

/**
 * Does `use` in the first cache folder in which it succeeds, and returns what it returns.
 *
 * @throws {UserError} Says of each folder why it cannot be used; `what` names what was to be put there.
 */
export async function inCache<T>(what: string, use: (folder: string) => Promise<T> | T): Promise<T> {
  const failures: string[] = [];
  for (const folder of candidates()) {
    try {
      return await use(privateFolder(folder));
    } catch (error) {
      failures.push(`${folder}: ${fileProblem(error)}`);
    }
  }
  throw new UserError(
    `There is no place for ${what}, ${failures.join("; ")}. Set XDG_CACHE_HOME to a folder of your own with room in it`,
  );
}

/** The first cache folder that can be used; `undefined` where there is none. */
export function cacheFolder(): string | undefined {
  for (const folder of candidates()) {
    try {
      return privateFolder(folder);
    } catch {
      // The next one, then.
    }
  }
  return undefined;
}

/** A relative `XDG_CACHE_HOME` is to be ignored, says the XDG Base Directory Specification; a relative home as well. */
function candidates(): string[] {
  const { XDG_CACHE_HOME: cache = "", HOME } = process.env;
  const homes = [HOME ?? homedir(), passwordHome()].filter((home) => home && isAbsolute(home)) as string[];
  const bases = isAbsolute(cache) ? [cache] : homes.map((home) => join(home, ".cache"));
  const owner = process.getuid?.();
  const shared = [tmpdir(), "/tmp"].filter((folder) => isAbsolute(folder)).map((folder) =>
    join(folder, owner === undefined ? "twobp" : `twobp-${owner}`)
  );
  return [...new Set([...bases.map((base) => join(base, "twobp")), ...shared])];
}

function passwordHome(): string | undefined {
  try {
    return userInfo().homedir;
  } catch {
    return undefined; // a user without an entry, as in a container
  }
}

/**
 * Makes the folder where it is missing, for this user alone, and returns its path without links.
 *
 * @throws {Error} When it cannot be made, or somebody else could put files there.
 */
export function privateFolder(path: string): string {
  makeFolders(path);
  const folder = realpathSync(path);
  const user = process.getuid?.();
  if (user === undefined) return folder; // Windows: folders in a user's profile are the user's
  const stat = statSync(folder);
  if (!stat.isDirectory()) throw new Error("it is not a folder");
  if (stat.uid !== user) throw new Error(`it belongs to another user (${stat.uid})`);
  if (stat.mode & 0o077) chmodSync(folder, 0o700);
  for (let above = dirname(folder);; above = dirname(above)) {
    const problem = weakness(statSync(above), user);
    if (problem) throw new Error(`${above} ${problem}`);
    if (above === dirname(above)) return folder;
  }
}

/** Not the `recursive` of Node's own, which goes on for ever in `/proc`. */
function makeFolders(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "EEXIST") return;
    if (code !== "ENOENT" || existsSync(dirname(path))) throw error;
    makeFolders(dirname(path));
    makeFolders(path);
  }
}

/** Whoever may rename what lies in a folder can put something else in its place. */
function weakness({ uid, mode }: Stats, user: number): string | undefined {
  const sticky = mode & 0o1000; // there, entries are their owners' alone
  if (mode & 0o002 && !sticky) return "can be written by everybody";
  // In a container the outside's owners show as "nobody".
  if (uid !== user && uid !== 0 && uid !== 65534) return `belongs to another user (${uid})`;
  return undefined;
}
