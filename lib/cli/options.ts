/**
 * What every command line of this project has in common: values read with the range that would be right, mistakes as one
 * line on standard error with exit code 2, and an exit of its own accord.
 *
 * @module
 */

import process from "node:process";
import { CommanderError, InvalidArgumentError } from "commander";
import { parseBytes } from "../bytes.ts";
import { reasonOf, UserError } from "../errors.ts";
import { isOfMachine } from "../gpu/device_error.ts";
import { escaped, firstLine, quoted } from "../text.ts";
import { RankError } from "../runtime/transport.ts";
import { isFirstToSay } from "../runtime/transports/mpi/last_word.ts";
import { isInJob, processNumber } from "../runtime/transports/mpi/launcher.ts";
import { isClosedPipe, outputProblem, watchEndings } from "./endings.ts";

/** Reads a whole number between two bounds; for commander's `option(flags, description, read)`. */
export function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}

/** Reads a number between two bounds, decimals and exponents allowed. */
export function real(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = text.trim() === "" ? NaN : Number(text);
    if (value >= least && value <= most) return value;
    const end = most < Number.MAX_VALUE ? `to ${most}` : "up";
    throw new InvalidArgumentError(`It must be a number from ${least} ${end}.`);
  };
}

/** Reads a regular expression. */
export function expression(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(`It is no regular expression: ${firstLine(error)}.`);
  }
}

/** Reads names separated by commas, none twice, each one of `known` where that is given. */
export function listOf(known?: readonly string[]): (text: string) => string[] {
  return (text) => {
    const names = text.split(",").map((name) => name.trim());
    for (const [index, name] of names.entries()) {
      if (name === "") throw new InvalidArgumentError("There is nothing between two commas.");
      if (known && !known.includes(name)) {
        throw new InvalidArgumentError(`${quoted(name)} is not one of ${known.join(", ")}.`);
      }
      if (names.indexOf(name) < index) throw new InvalidArgumentError(`${quoted(name)} is there twice.`);
    }
    return names;
  };
}

/** Reads one of `known`. */
export function oneOf<T extends string>(known: readonly T[]): (text: string) => T {
  return (text) => {
    if ((known as readonly string[]).includes(text)) return text as T;
    throw new InvalidArgumentError(`${quoted(text)} is not one of ${known.join(", ")}.`);
  };
}

/**
 * Reads pairs such as `f=1,comm=0.5`: numbers of 0 or more for some of the names in `defaults`, which fills in the rest.
 */
export function pairs<T extends Record<string, number>>(defaults: T): (text: string) => T {
  return (text) => {
    const values: Record<string, number> = {};
    for (const pair of text.split(",")) {
      const [, name, digits] = /^\s*(\w+)\s*=\s*(\S+)\s*$/.exec(pair) ?? [];
      const value = Number(digits);
      if (!Object.hasOwn(defaults, name ?? "") || !(value >= 0 && value < Infinity)) {
        const form = Object.keys(defaults).map((key) => `${key}=NUMBER`).join(",");
        throw new InvalidArgumentError(`${quoted(pair)} is not one of ${form} with a number of 0 or more.`);
      }
      if (Object.hasOwn(values, name)) throw new InvalidArgumentError(`${quoted(name)} is there twice.`);
      values[name] = value;
    }
    return { ...defaults, ...values };
  };
}

/** Reads a number of bytes, 64MiB or 1e9 for example. */
export const bytes: (text: string) => number = reading(parseBytes);

/** Turns a function of this library that throws UserErrors into a reader of option values. */
export function reading<T>(read: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return read(text);
    } catch (error) {
      if (error instanceof UserError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

/** The part of commander's `Command` that `main()` uses. */
export interface Program {
  /** Name in error messages. */
  name(): string;
  /** Sub-commands. */
  readonly commands: readonly Program[];
  /** Throw instead of ending the process. */
  exitOverride(): Program;
  /** Whether to take arguments that no command declares. */
  allowExcessArguments(allow: boolean): Program;
  /** Where messages go. */
  configureOutput(output: { writeErr: (text: string) => void; writeOut?: (text: string) => void }): Program;
  /** How help is set. */
  configureHelp(help: { helpWidth: number }): Program;
  /** Reads the arguments and runs the action. */
  parseAsync(argv: string[], options: { from: "user" }): Promise<unknown>;
}

/**
 * Runs a program and ends the process: code 0 when it is done, has shown its help or lost its reader, 2 with one line on
 * standard error for every mistake of the caller, 1 with one line where a device was lost or is
 * too small in the middle, 1 with a stack trace for a mistake of ours, 130 after Ctrl-C.
 *
 * Sub-commands must be added before, since the settings are made here for all of them.
 */
export async function main(program: Program, argv: readonly string[] = process.argv.slice(2)): Promise<never> {
  watchEndings();
  prepare(program);
  try {
    await program.parseAsync([...argv], { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) process.exit(0);
    if (isClosedPipe(error)) process.exit(0);
    const problem = outputProblem(error);
    if (problem !== undefined) {
      await lastWord(`${program.name()}: ${problem}`);
      process.exit(2);
    }
    if (!(error instanceof CommanderError || error instanceof UserError)) {
      // A device's or a layer's reason may have lines of its own, and whatever else.
      const lines = String((error as Error).stack ?? error).split("\n");
      const isRanks = error instanceof RankError && isInJob(); // all processes end with it: a line says which rank
      await lastWord(
        isRanks || isOfMachine(error)
          ? `${program.name()}: ${new UserError(reasonOf(error)).message}`
          : lines.map(escaped).join("\n"),
      );
      process.exit(1);
    }
    if ((error as { code?: string }).code === "commander.help") {
      const names = program.commands.map((command) => command.name()).join(", ");
      await lastWord(`${program.name()}: a command is missing; the commands are ${names}, and --help explains them`);
      process.exit(2);
    }
    // Commander's messages hold arguments as they were given; a UserError's hold nothing that a terminal obeys.
    const { message } = new UserError(error.message.replace(/^error: /, ""));
    await lastWord(`${program.name()}: ${message}`);
    process.exit(2);
  }
  // A stream that could not be written to says so now, if at all.
  await new Promise((resolve) => setTimeout(resolve));
  // Open GPU drivers would keep the process alive.
  process.exit(0);
}

/** Writes why the process ends to standard error; of the processes of a job one does that for all that have the same reason. */
async function lastWord(text: string): Promise<void> {
  if (!isInJob() || await isFirstToSay(text)) process.stderr.write(`${text}\n`);
}

function prepare(command: Program): void {
  command.exitOverride().allowExcessArguments(false).configureOutput({
    writeErr: () => {},
    ...processNumber() > 0 ? { writeOut: () => {} } : {}, // help comes once
  });
  command.configureHelp({ helpWidth: Math.min(100, process.stdout.columns || 100) });
  for (const child of command.commands) prepare(child);
}
