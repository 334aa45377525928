/** `--cluster`: a file with what stages, messages and ends of steps take. */
import { readFileSync, statSync } from "node:fs";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { type Cluster, readCluster } from "../schedules/price/cluster.ts";
import { shown } from "../text.ts";

/** More than a cluster file has. */
const mostBytes = 64 * 2 ** 20;

/**
 * The contents of a cluster file.
 *
 * @throws {UserError} For a file that cannot be read, or is none; the line names the file.
 */
export function loadCluster(path: string): Cluster {
  const name = shown(path);
  let text: string;
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) throw new UserError(`There is no file ${name}`);
    if (!stat.isFile()) throw new UserError(`${name} is not a file; give the JSON of schedule import`);
    if (stat.size > mostBytes) {
      throw new UserError(
        `${name} has ${Math.ceil(stat.size / 2 ** 20)} MiB, so it is no cluster file; import it first`,
      );
    }
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`Cannot read ${name}: ${fileProblem(error)}`, { cause: error });
  }
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (error) {
    throw new UserError(`${name} is no JSON: give what schedule import --json writes`, { cause: error });
  }
  if (typeof value === "object" && value !== null && "traceEvents" in value) {
    throw new UserError(`${name} is a trace: make a cluster file of it with schedule import ${name} --json FILE`);
  }
  try {
    return readCluster(value);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`${name}: ${error.message}`, { cause: error });
  }
}
