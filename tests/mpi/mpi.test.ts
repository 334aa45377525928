/** Ranks in several processes: they compute what one process does, to the bit, and a mistake or a failure ends as it should. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { openDevices } from "../../lib/gpu/devices.ts";
import { workload } from "./workload.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** A launcher of this machine, and how it is called for two processes that may use all cores. */
interface Mpi {
  readonly name: string;
  readonly command: readonly string[];
}

/** Those that are installed, of the two kinds. */
const launchers: readonly Mpi[] = ["mpirun.openmpi", "mpiexec.hydra", "mpirun"].flatMap((command) => {
  try {
    const said = execFileSync(command, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    if (/open mpi/i.test(said)) {
      return [{ name: "Open MPI", command: [command, "-n", "2", "--bind-to", "none", "--oversubscribe"] }];
    }
    return [{ name: "MPICH", command: [command, "-n", "2"] }];
  } catch {
    return [];
  }
});
const find = (name: string) => launchers.find((each) => each.name === name);

const deno = [process.execPath, "run", "-A", "--no-check"], node = ["node", "--import", "tsx"];

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

/** Runs a job; `onLine` is told what comes, to do something to it meanwhile. */
function run(command: readonly string[], env: Record<string, string> = {}, onText?: (text: string) => void) {
  const start = performance.now();
  // As root, Open MPI wants to be told twice.
  const root_ = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
  const child = spawn(command[0], command.slice(1), { cwd: root, env: { ...process.env, ...root_, ...env } });
  let stdout = "", stderr = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
    onText?.(stdout);
  });
  child.stderr.on("data", (chunk) => stderr += chunk);
  return new Promise<Ended>((resolve, reject) =>
    child.once("error", reject).once(
      "close",
      (code) => resolve({ code, stdout, stderr, ms: performance.now() - start }),
    )
  );
}

for (const [name, runtime] of [["Open MPI", deno], ["MPICH", node]] as const) {
  const mpi = find(name);
  test(
    `two processes of ${name}, in ${
      runtime[0] === "node" ? "Node" : "Deno"
    }, compute what one does, to the bit, and fail and go on alike`,
    {
      skip: mpi ? false : `${name} is not installed`,
    },
    async () => {
      const { code, stdout, stderr } = await run([...mpi!.command, ...runtime, "tests/mpi/program.ts"]);
      assert.equal(code, 0, stderr);
      const { results, library, transport, size, peers } = JSON.parse(stdout);
      assert.match(library, new RegExp(`^${name} \\d`));
      assert.deepEqual({ transport, size, peers }, { transport: "mpi", size: 2, peers: [0] });
      const set = await openDevices(2, { virtual: false });
      try {
        const expected = await workload(set);
        assert.deepEqual(results, expected);
        for (const each of expected) {
          assert.match(JSON.stringify(each), /Rank \d (of replica 1 )?failed at \dF0: the layer is broken/);
        }
      } finally {
        set.close();
      }
    },
  );
}
