/**
 * `deno task mpi:install`: an MPI for machines that have none, without root. PyPI has MPICH as a package for Python, which is an archive
 * of its library and launcher, and needs no Python.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { Command } from "commander";
import { unzipSync } from "fflate";
import { UserError } from "../errors.ts";
import { fileProblem, makeFolderWhole } from "../files.ts";
import { cacheFolder, inCache } from "../gpu/cache_folder.ts";
import { mpiFolder } from "../runtime/transports/mpi/installed.ts";
import { firstLine } from "../text.ts";

/** The version that is installed; its library has MPI 5's standard interface. */
const version = "5.0.2";

/** The command line. */
export function mpiInstallCommand(): Command {
  return new Command("mpi:install")
    .description(
      `Put MPICH ${version} into this user's cache: its library, and mpiexec to start jobs with. Needs no root.`,
    )
    .option("--index <url>", "the package index to ask (default: PIP_INDEX_URL, or PyPI)")
    .option("--wheel <file>", `a wheel that is here already, of pip download --no-deps mpich==${version}`)
    .action(async ({ index, wheel }: { index?: string; wheel?: string }) => {
      const cache = cacheFolder(), known = cache === undefined ? undefined : mpiFolder(cache);
      const folder = known !== undefined && existsSync(known) ? known : await install(
        wheel === undefined ? await download(index) : read(wheel),
      );
      const mpiexec = join(folder, "bin", "mpiexec");
      process.stdout.write(
        `MPICH ${version} is in ${folder}. Processes that its launcher starts find its library:\n\n` +
          `  ${mpiexec} -n 2 deno task train --steps 20\n\n` +
          `Over several machines, each of which needs this too: ${mpiexec} -hosts one,other -n 2 ...\n`,
      );
    });
}

/** Unpacks a wheel into the cache, and returns where. */
function install(wheel: Uint8Array): Promise<string> {
  const files = filesOf(wheel);
  return inCache("MPI", async (cache) => {
    const target = mpiFolder(cache);
    await makeFolderWhole(target, (made) => write(files, made), () => Promise.resolve(true));
    return target;
  });
}

function read(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new UserError(`--wheel: cannot read ${path}: ${fileProblem(error)}`);
  }
}

/** What an index says of a file, as PEP 691 has it. */
interface IndexedFile {
  readonly filename: string;
  readonly url: string;
  readonly hashes: { readonly sha256?: string };
}

/** The wheel for this machine, as its index vouches for it. */
async function download(given: string | undefined): Promise<Uint8Array> {
  const index = (given ?? (process.env.PIP_INDEX_URL || "https://pypi.org/simple")).replace(/\/+$/, "");
  const page = `${index}/mpich/`;
  const listed = await fetched(page, { headers: { accept: "application/vnd.pypi.simple.v1+json" } });
  let files: readonly IndexedFile[];
  try {
    ({ files } = await listed.json());
  } catch {
    throw new UserError(
      `mpi:install: ${page} does not answer as a package index does; download the wheel, and give --wheel`,
    );
  }
  const machine = platformOf();
  const file = files.find(({ filename }) => filename.startsWith(`mpich-${version}-`) && machine.test(filename));
  if (!file) {
    throw new UserError(
      `mpi:install: ${page} has no MPICH ${version} for ${process.platform} ${process.arch}: install one with the system's packages`,
    );
  }
  const bytes = new Uint8Array(await (await fetched(new URL(file.url, page).href)).arrayBuffer());
  const sum = createHash("sha256").update(bytes).digest("hex");
  if (sum === file.hashes.sha256) return bytes;
  throw new UserError(`mpi:install: ${file.filename} is damaged: its SHA-256 is ${sum}, not ${file.hashes.sha256}`);
}

async function fetched(url: string, how?: RequestInit): Promise<Response> {
  try {
    const answer = await fetch(url, how);
    if (answer.ok) return answer;
    throw new Error(`${answer.status} ${answer.statusText}`);
  } catch (error) {
    throw new UserError(
      `mpi:install: cannot get ${url}: ${
        firstLine(error)
      }; where there is no network, give the file of pip download with --wheel`,
    );
  }
}

/** What the name of a wheel for this machine has in it. */
function platformOf(): RegExp {
  const { platform, arch } = process;
  if (platform === "linux") return arch === "arm64" ? /manylinux.*aarch64/ : /manylinux.*x86_64/;
  if (platform === "darwin") return arch === "arm64" ? /macosx.*arm64/ : /macosx.*x86_64/;
  throw new UserError(`mpi:install: there is none for ${platform}; install Microsoft MPI or use WSL`);
}

/** Programs and libraries of a wheel, by their paths, and its licences. */
function filesOf(wheel: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const inside = /\.data\/data\/((?:bin|lib)\/.+[^/])$/, licence = /\/licenses\/([^/]+)$/;
  let entries: Record<string, Uint8Array>;
  try {
    entries = unzipSync(wheel, { filter: ({ name }) => inside.test(name) || licence.test(name) });
  } catch (error) {
    throw new UserError(`mpi:install: this is no wheel: ${firstLine(error)}`);
  }
  const files = new Map(
    Object.entries(entries).map((
      [name, bytes],
    ) => [inside.exec(name)?.[1] ?? `licenses/${licence.exec(name)![1]}`, bytes]),
  );
  if (files.has("bin/mpiexec")) return files;
  throw new UserError("mpi:install: there is no mpiexec in this wheel: it is of another package than mpich");
}

function write(files: ReadonlyMap<string, Uint8Array>, folder: string): void {
  for (const [name, bytes] of files) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes, name.startsWith("bin/") ? { mode: 0o755 } : {});
  }
}
