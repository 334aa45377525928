/** Packages that only some of the toolkit needs, loaded when they are needed: an installation may leave them out. */
import { UserError } from "./errors.ts";
import { firstLine } from "./text.ts";

/**
 * What `load` imports or requires.
 *
 * @param name The package.
 * @param use What it is for, as the beginning of a sentence: "Devices are opened through".
 * @throws {UserError} Where it cannot be loaded.
 */
export async function optional<T>(name: string, use: string, load: () => T | Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    throw cannotLoad(name, use, error);
  }
}

/** The error of {@link optional}. */
export function cannotLoad(name: string, use: string, error: unknown): UserError {
  return new UserError(`${use} the package ${name}, which cannot be loaded (npm install ${name}): ${firstLine(error)}`);
}
