import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { program } from "../spawn.ts";

const { run: schedule, close } = program("lib/cli/schedule.ts");
after(close);

const folder = mkdtempSync(join(tmpdir(), "twobp-import-"));
after(() => rmSync(folder, { recursive: true }));
const traces = (name: string) => [0, 1].map((rank) => `tests/fixtures/traces/${name}.rank${rank}.json.gz`);

test("schedule import says which schedule ran, and its JSON and CSV go into the other commands", async () => {
  const [json, csv] = [join(folder, "cluster.json"), join(folder, "ran.csv")];
  const { code, stdout, stderr } = await schedule("import", ...traces("1f1b-1-2bp"), "--json", json, "--csv", csv);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^1f1b-1, 2BP fill on 2 ranks, 2 stages, 2 micro-batches, 3 steps \(traced\)$/m);
  assert.match(stdout, /│ +1 │ I +│ +5\.94/);
  assert.match(stdout, /^A step takes 54\.39 ms/m);
  const report = JSON.parse(readFileSync(json, "utf8"));
  assert.deepEqual([report.schema, report.ranks, report.steps, report.schedule], [1, 2, 3, "1f1b-1, 2BP fill"]);
  assert.deepEqual(Object.keys(report.stages[0]), ["stage", "f", "i", "w"]);
  const ran = await schedule("simulate", csv, "--cluster", json, "--json", "-");
  assert.equal(ran.code, 0, ran.stderr);
  const { makespan } = JSON.parse(ran.stdout);
  assert.ok(Math.abs(makespan / 54.39 - 1) < 0.03, `${makespan} for 54.39 ms`);
  const made = await schedule(
    "simulate",
    "1f1b-1",
    "--microbatches",
    "2",
    "--two-stage",
    "--cluster",
    json,
    "--json",
    "-",
  );
  assert.equal(JSON.parse(made.stdout).makespan, makespan, "the ranks are the cluster's");
  const found = await schedule("search", "--microbatches", "2", "--cluster", json, "--json", "-");
  assert.equal(found.code, 0, found.stderr);
  assert.ok(JSON.parse(found.stdout).makespan <= makespan);
  const plan = ["plan", "--model", "llama-tiny", "--microbatches", "2", "--budget", "1GiB", "--cluster", json];
  const planned = await schedule(...plan, "--json", "-", "--csv", join(folder, "planned.csv"));
  assert.equal(planned.code, 0, planned.stderr);
  const { cluster, devices, leftOut, makespan: step } = JSON.parse(planned.stdout);
  assert.deepEqual([cluster, devices], ["cluster.json", 2]);
  assert.ok(step <= makespan, `${step} ms planned, ${makespan} ms traced`);
  assert.deepEqual(leftOut.filter(({ name }: { name: string }) => name === "zb-v"), [{
    name: "zb-v",
    reason: "4 stages",
  }]);
  assert.match(planned.stderr, /^A step takes [\d.]+ ms with the times of cluster\.json\.$/m);
  assert.match(planned.stderr, /^Left out: .*zb-v.* \(4 stages\)\.$/m);
  const again = await schedule("simulate", join(folder, "planned.csv"), "--cluster", json, "--json", "-");
  assert.ok(Math.abs(JSON.parse(again.stdout).makespan / step - 1) < 1e-9, `${again.stdout} for ${step}`);
  for (const command of ["show", "validate"]) assert.equal((await schedule(command, csv, "--cluster", json)).code, 0);
});

test("a traced W of several micro-batches is kept in --csv, with a word that PyTorch rejects it", async () => {
  const [trace, csv] = [join(folder, "wide.trace.json"), join(folder, "wide.csv")];
  const wide = ["--devices", "2", "--two-stage", "--policy", "end", "--width", "2"];
  assert.equal((await schedule("show", "1f1b-1", ...wide, "--trace", trace)).code, 0);
  for (const args of [["import"], ["explain", "--budget", "0"]]) {
    const { code, stderr } = await schedule(...args, trace, "--csv", csv);
    assert.equal(code, 0, stderr);
    const isWide = readFileSync(csv, "utf8").includes("CONCAT_W");
    assert.equal(/\(CONCAT_W\), which PyTorch rejects/.test(stderr), isWide, `${args}: ${stderr}`);
    assert.ok(isWide || args[0] === "explain");
  }
});

test("mistakes are one line and exit code 2", async () => {
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const cluster = write("small.json", '{"schema":1,"ranks":2,"stages":[{"f":1,"b":2},{"f":1,"b":2}]}');
  const lacking = '{"schema":1,"ranks":2,"stages":[{"f":1,"b":2},{"b":2}]}';
  const times = write("times.csv", "stage,kind,ms\n0,F,1\n");
  const wrong: [string[], RegExp][] = [
    [["import"], /missing required argument 'trace'/],
    [["import", "none.json"], /There is no file none\.json/],
    [["import", ...traces("1f1b-1"), "--warmup", "3"], /A warm-up of 3 steps leaves none: there are 3 whole steps/],
    [["import", ...traces("1f1b-1"), "--warmups", "3"], /unknown option '--warmups'/],
    [["import", traces("1f1b-1")[1]], /No trace has actions of stage 0; give the traces of all ranks/],
    [["import", times, "--csv", "-"], /--csv writes the schedule that ran, and a table of times does not say which/],
    [["simulate", "gpipe", "--cluster", "none.json"], /There is no file none\.json/],
    [["simulate", "gpipe", "--cluster", cluster, "--costs", "f=1"], /--costs and --cluster both say what actions take/],
    [
      ["simulate", "gpipe", "--cluster", cluster, "--devices", "4"],
      /--cluster has times of 2 ranks and 2 stages, and gpipe has 4 ranks and 4 stages; give the same/,
    ],
    [["simulate", "zb-v", "--cluster", cluster], /and zb-v has 2 ranks and 4 stages; give the same/],
    [
      ["simulate", "gpipe", "--two-stage", "--cluster", cluster],
      /does not say what I takes on stage \d: trace a run with 2BP/,
    ],
    [
      ["plan", "--model", "llama-tiny", "--budget", "1GiB", "--cluster", cluster, "--devices", "4"],
      /The cluster has times of 2 ranks, and the plan is for 4; give the same/,
    ],
    [
      ["plan", "--model", "llama-tiny", "--budget", "1GiB", "--cluster", write("lacking.json", lacking)],
      /The cluster does not say what F takes on stage 1: add it/,
    ],
    [
      ["plan", "--model", "llama-tiny", "--budget", "1GiB", "--cluster", write("v0.json", '{"schema":2}')],
      /v0\.json: A cluster file has schema: 1, and this one 2/,
    ],
    [["search", "--cluster", cluster], /does not say what [IW] takes on stage \d: trace a run with 2BP/],
    [
      ["simulate", "gpipe", "--cluster", write("bad.json", "{")],
      /bad\.json is no JSON: give what schedule import --json writes/,
    ],
    [
      ["simulate", "gpipe", "--cluster", write("t.json", '{"traceEvents":[]}')],
      /t\.json is a trace: make a cluster file of it/,
    ],
    [
      ["simulate", "gpipe", "--cluster", write("v.json", '{"schema":3}')],
      /v\.json: A cluster file has schema: 1, and this one 3/,
    ],
  ];
  for (const [args, message] of wrong) {
    const { code, stdout, stderr } = await schedule(...args);
    assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
    assert.equal(stdout, "");
    assert.match(stderr, message);
    assert.equal(stderr.trim().split("\n").length, 1, stderr);
  }
});
