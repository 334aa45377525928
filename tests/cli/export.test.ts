import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { fromCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { program } from "../spawn.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "twobp-export-"));
after(() => rmSync(folder, { recursive: true }));

const { run: schedule, close } = program("lib/cli/schedule.ts");
after(close);

test("export writes the plan in both forms, the runner, and what torchtitan and Megatron have to be told", async () => {
  const to = join(folder, "zb-h1");
  const flags = ["--to", "torch", "--devices", "2", "--partition", "5,3"];
  const { code, stdout, stderr } = await schedule("export", "zb-h1", to, ...flags);
  assert.equal(stderr, "");
  assert.equal(code, 0);
  assert.match(
    stdout,
    /^zb-h1, split on 2 ranks, 2 stages, \d+ micro-batches in .*: plan\.csv, plan\.comms\.csv, run\.py/,
  );
  assert.deepEqual(readdirSync(to).sort(), ["README.md", "plan.comms.csv", "plan.csv", "run.py"]);
  const read = (name: string) => readFileSync(join(to, name), "utf8");
  const { actions } = generate("zb-h1", { devices: 2 });
  assert.deepEqual(fromCsv(read("plan.csv")).actions, actions);
  assert.deepEqual(fromCsv(read("plan.comms.csv")).actions, actions);
  assert.doesNotMatch(read("plan.csv"), /[A-Z]_|SHARD/);
  assert.match(read("plan.comms.csv"), /SEND_F.*REDUCE_GRAD/);
  assert.equal(read("run.py"), readFileSync(join(root, "lib/cli/torch/run.py"), "utf8"));
  assert.match(read("README.md"), /pipeline_parallel_schedule = "1F1B"\n/);
  assert.match(read("README.md"), /--num-layers 8 .* --pipeline-model-parallel-layout "Et\*5\|t\*3,L"/);
});

test("export says what is lost of a W of several micro-batches, and show where its CSV has one", async () => {
  const flags = ["1f1b-1", "--devices", "2", "--two-stage", "--policy", "end", "--width", "2"];
  const to = join(folder, "wide");
  const [name, ...rest] = flags;
  const { code, stderr } = await schedule("export", name, to, "--to", "torch", ...rest);
  assert.equal(code, 0);
  assert.match(
    stderr,
    /^schedule: 2 W of up to 2 micro-batches are written as single W, one after the other: PyTorch has/,
  );
  assert.match(readFileSync(join(to, "README.md"), "utf8"), /2 W of up to 2 micro-batches are written as single W/);
  assert.doesNotMatch(readFileSync(join(to, "plan.csv"), "utf8"), /CONCAT_W/);
  const shown = await schedule("show", ...flags, "--csv", join(folder, "wide.csv"));
  assert.match(shown.stderr, /^schedule: the CSV has W of several micro-batches \(CONCAT_W\), which PyTorch rejects: /);
  assert.match(readFileSync(join(folder, "wide.csv"), "utf8"), /CONCAT_W/);
});

test("export says that R are left out, and show where its CSV has some", async () => {
  const flags = ["1f1b-1", "--devices", "2", "--two-stage", "--costs", "i=2,r=1", "--recompute-ahead"];
  const to = join(folder, "ahead"), csv = join(folder, "ahead.csv");
  const [name, ...rest] = flags;
  const { code, stderr } = await schedule("export", name, to, "--to", "torch", ...rest);
  assert.equal(code, 0);
  assert.equal(
    stderr,
    "schedule: 4 R are left out: PyTorch has none, and what a backward recomputes there it recomputes itself\n",
  );
  assert.match(readFileSync(join(to, "README.md"), "utf8"), /\n4 R are left out: PyTorch has none/);
  for (const form of ["plan.csv", "plan.comms.csv"]) assert.doesNotMatch(readFileSync(join(to, form), "utf8"), /\dR\d/);
  const shown = await schedule("show", ...flags, "--csv", csv);
  assert.equal(
    shown.stderr,
    "schedule: the CSV has recomputation of its own (R), which PyTorch rejects: schedule export --to torch leaves it out\n",
  );
  assert.match(readFileSync(csv, "utf8"), /^0F0,0F1,0R0,0I0,/);
});

test("what torchtitan cannot place is said beside the file", async () => {
  const file = join(folder, "consecutive.csv");
  writeFileSync(file, "0F0,1F0,1B0,0B0\n2F0,3F0,3B0,2B0\n");
  const to = join(folder, "consecutive");
  assert.equal((await schedule("export", file, to, "--to", "torch", "--partition", "Et|(t|)*2tL")).code, 0);
  const text = readFileSync(join(to, "README.md"), "utf8");
  assert.match(text, /It does not take this placement: it knows stages dealt out round after round/);
  assert.match(text, /Neither order nor placement: its stages go round the ranks/);
  assert.doesNotMatch(text, /pipeline_parallel_schedule/);
});

test("export refuses in one line, before it writes", async () => {
  const full = join(folder, "full");
  await schedule("export", "naive", full, "--to", "torch");
  const cases: [args: string[], message: RegExp][] = [
    [["export", "naive", full, "--to", "torch"], /there is something in it; give the name of a new folder/],
    [["export", "naive", join(folder, "a"), "--to", "jax"], /"jax" is not one of torch/],
    [["export", "naive", join(folder, "a")], /required option '--to <framework>' not specified/],
    [["export", "naive", join(folder, "a"), "--to", "torch", "--partition", "1,2"], /has 2 numbers for 4 stages/],
    [
      ["export", "naive", join(folder, "a"), "--to", "torch", "--partition", "1,x"],
      /must be a whole number from 0 to 4096/,
    ],
    [["export", "naive", join(folder, "a"), "--to", "torch", "--partition", "0,0"], /must have a layer somewhere/],
    [["export", "naive", join(folder, "a"), "--to", "torch", "--policy", "end"], /add --two-stage/],
    [["export", "naive", join(folder, "a"), "--to", "torch", "--forward-only"], /has forward passes alone/],
    [["export", "naiv", join(folder, "a"), "--to", "torch"], /Unknown schedule "naiv"/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await schedule(...args);
    assert.equal(code, 2, args.join(" "));
    assert.equal(stdout, "");
    assert.match(stderr, message);
    assert.match(stderr, /^schedule: [^\n]*\n$/);
  }
  assert.ok(!existsSync(join(folder, "a")));
});
