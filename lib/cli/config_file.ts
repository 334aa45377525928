/** Settings of a command in a JSON file, by the names of its flags. */
import { readFileSync } from "node:fs";
import { type Command, InvalidArgumentError, type Option } from "commander";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { described } from "../rules.ts";
import { firstLine, quoted, shown } from "../text.ts";

/** Flags that say where settings are, and nothing about the run. */
const aside = ["config", "help"];

/**
 * Gives a command what a JSON file says, an object with values by the names of flags without their dashes: `{ "steps": 100, "two-stage":
 * true }`. What was given on the command line stays.
 *
 * @throws {UserError} Names the file, the setting, and what is wrong with it.
 */
export function applyConfig(command: Command, path: string): void {
  const known = command.options.filter(({ long }) => long && !aside.includes(long.slice(2)));
  for (const [name, value] of Object.entries(read(path))) {
    const option = known.find(({ long }) => long === `--${name}`);
    if (!option) {
      const names = known.map(({ long }) => long!.slice(2)).join(", ");
      throw new UserError(`${shown(path)}: there is no setting ${quoted(name)}; there are ${names}`);
    }
    const setting = valueOf(option, value, `${shown(path)}: ${quoted(name)}`);
    const key = option.attributeName();
    if (command.getOptionValueSource(key) !== "cli") command.setOptionValueWithSource(key, setting, "config");
  }
}

function read(path: string): object {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new UserError(`Cannot read --config ${shown(path)}: ${fileProblem(error)}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${shown(path)} is not JSON: ${firstLine(error)}`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new UserError(`${shown(path)} must hold an object, as in {"steps": 100}, not ${described(value)}`);
}

/** A value as the flag's own reader makes it. */
function valueOf(option: Option, value: unknown, where: string): unknown {
  if (option.isBoolean()) {
    if (typeof value === "boolean") return value;
    throw new UserError(`${where} must be true or false, not ${described(value)}`);
  }
  if (typeof value !== "string" && typeof value !== "number") {
    throw new UserError(`${where} must be a text or a number, not ${described(value)}`);
  }
  try {
    return option.parseArg ? option.parseArg(String(value), undefined) : String(value);
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    throw new UserError(`${where} is ${described(value)}: ${error.message}`);
  }
}
