import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { fromCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { program, start } from "../spawn.ts";

const { run: schedule, close } = program("lib/cli/schedule.ts");
after(close);

const folder = mkdtempSync(join(tmpdir(), "twobp-cli-"));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};

test("schedule simulate gives the golden makespans as JSON", async () => {
  const goldens: [args: string, makespan: number][] = [
    ["naive", 12],
    ["naive --two-stage", 9],
    ["gpipe", 21],
    ["gpipe --two-stage --policy end", 18],
    ["1f1b-1", 21],
    ["1f1b-1 --two-stage", 15],
    ["1f1b-1 --two-stage --policy end", 18],
    ["1f1b-1 --forward-only", 7],
    ["1f1b-1 --costs i=2,r=1", 28],
    ["1f1b-1 --costs i=2,r=1 --recompute-ahead", 25],
    ["1f1b-1 --costs i=2,r=1 --recompute-ahead --two-stage", 19],
    ["1f1b-2 --two-stage --policy fill", 27],
    ["1f1b-2 --two-stage --policy end", 30],
    ["1f1b-2 --costs f=2,i=2,w=2", 66],
    ["1f1b-2 --costs b=3", 44],
    ["naive --costs host=0.5,comm=1", 8 * 0.5 + 12 + 6],
  ];
  for (const [args, makespan] of goldens) {
    const { code, stdout } = await schedule("simulate", ...args.split(" "), "--devices", "4", "--json", "-");
    assert.equal(code, 0);
    const json = JSON.parse(stdout);
    assert.deepEqual([json.schema, json.mode, json.devices, json.makespan], [1, "simulated", 4, makespan], args);
    assert.equal(json.peak.length, 4);
    assert.equal(json.actions.length, 4);
    assert.deepEqual(json.actions[0][0].action, "0F0");
  }
});

test("schedule show writes CSV, trace and page, whole and with nothing beside them", async () => {
  const [csv, trace, html] = ["a.csv", "a.json", "a.html"].map((name) => join(folder, name));
  const { code, stdout } = await schedule(
    "show",
    "1f1b-2",
    "--two-stage",
    "--csv",
    csv,
    "--trace",
    trace,
    "--html",
    html,
  );
  assert.equal(code, 0);
  assert.match(stdout, /rank 3 +F0 I0 F1 I1/);
  assert.equal(sizesOf(fromCsv(readFileSync(csv, "utf8"))).microbatches, 8);
  assert.ok(JSON.parse(readFileSync(trace, "utf8")).traceEvents.length > 96);
  const page = readFileSync(html, "utf8");
  assert.match(page, /<h2>1f1b-2: 33 units, bubble 27\.3 %<\/h2>/);
  assert.match(page, /<h2>1f1b-2, 2BP fill: 27 units, bubble 11\.1 %<\/h2>/);
  assert.deepEqual(readdirSync(folder).sort(), ["a.csv", "a.html", "a.json"]);
});

test("schedule reads the CSV that it writes, with transfers", async () => {
  const { stdout } = await schedule("show", "zb-v", "--devices", "3", "--csv", "-", "--transfers");
  const path = file("zb-v.csv", stdout);
  assert.deepEqual(fromCsv(stdout).actions, generate("zb-v", { devices: 3 }).actions);
  const { code, stdout: answer } = await schedule("validate", path, "--devices", "3");
  assert.equal(code, 0);
  assert.equal(answer, "zb-v, split on 3 ranks, 6 stages, 6 micro-batches: valid, 108 actions\n");
});

test("schedule show and simulate say that a policy is slower than no 2BP, and by how much", async () => {
  const args = ["1f1b-1", "--devices", "2", "--two-stage", "--policy", "end", "--costs", "b=1"];
  for (const command of ["show", "simulate"]) {
    const { code, stdout } = await schedule(command, ...args);
    assert.equal(code, 0);
    assert.match(stdout, /^With policy end, 2BP is 33\.3 % slower than without in these costs$/m);
    assert.doesNotMatch((await schedule(command, ...args.with(-1, "b=2"))).stdout, /slower/);
  }
  const json = JSON.parse((await schedule("simulate", ...args, "--json", "-")).stdout);
  assert.equal(Math.round(json.slower * 1e6), 333333);
  assert.equal(JSON.parse((await schedule("simulate", ...args.with(-1, "b=2"), "--json", "-")).stdout).slower, null);
});

test("schedule search says what it found and that it is proven", async () => {
  const { code, stdout } = await schedule(
    "search",
    "1f1b-2",
    "--devices",
    "4",
    "--cap",
    "4",
    "--memory",
    "derivatives=0",
  );
  assert.equal(code, 0);
  assert.match(stdout, /Proven optimal: no schedule of one stage a rank is faster than 27\n/);
});

test("select splits some backwards, says so in JSON, and search is no slower than the schedule it is given", async () => {
  const costs = ["--costs", "f=1,i=1,w=1,b=1.6"];
  const how = ["1f1b-2", "--two-stage", "--policy", "select", ...costs];
  const shown = await schedule("show", ...how);
  assert.equal(shown.code, 0, shown.stderr);
  assert.match(shown.stdout, /1f1b-2, 2BP select on 4 ranks/);
  for (const kind of ["B\\d", "I\\d", "W\\d"]) assert.match(shown.stdout.split("2BP select")[1], new RegExp(kind));
  const { policy, slower, makespan } = JSON.parse((await schedule("simulate", ...how, "--json", "-")).stdout);
  assert.deepEqual([policy, slower], ["select", null]);
  assert.ok(makespan < 28.6, `${makespan}`); // 11 times f + b, without 2BP
  const found = await schedule("search", "1f1b-2", "--devices", "2", "--costs", "f=1,i=1,w=1,b=1.5");
  assert.match(found.stdout, /Proven optimal: no schedule of one stage a rank is faster than 12\n/);
});

test("schedule search keeps the placement of the schedule that it is given, and is no slower", async () => {
  const { code, stdout, stderr } = await schedule("search", "hanayo", "--devices", "2");
  assert.equal(code, 0, stderr);
  assert.match(stdout, /search, split on 2 ranks, 4 stages, 2 micro-batches/);
  assert.match(stdout, /Proven optimal: no schedule of these stages on these ranks is faster than \d+\n/);
});

test("Ctrl-C ends a search with the best so far", async () => {
  const args = [
    "search",
    "--devices",
    "8",
    "--microbatches",
    "24",
    "--cap",
    "6",
    "--costs",
    "comm=0.5",
    "--budget",
    "999999999",
  ];
  const { child, done, said } = start("lib/cli/schedule.ts", args);
  await said("candidates", "stderr"); // it has begun
  process.kill(child.pid!, "SIGINT");
  const { code, stdout, stderr } = await done;
  assert.equal(code, 0, stderr);
  assert.match(
    stdout,
    /Interrupted; not proven optimal: no schedule is faster than [\d.]+, and this one is [\d.]+ % above/,
  );
});

test("every mistake on the command line is one line and exit code 2", async () => {
  const mistakes: [args: string[], message: RegExp][] = [
    [[], /a command is missing; the commands are show, validate, simulate, search/],
    [["draw"], /unknown command 'draw'/],
    [["show", "foo"], /Unknown schedule "foo", and no file of that name; the schedules are naive, gpipe/],
    [["show", "foo.csv"], /There is no file foo\.csv/],
    [["show", folder], /is not a file/],
    [["show", "gpipe", "--devices", "0"], /argument '0' is invalid\. It must be a whole number from 1 to 4096/],
    [["show", "gpipe", "--bogus"], /unknown option '--bogus'/],
    [
      ["show", "gpipe", "--forward-only", "--recompute-ahead"],
      /--recompute-ahead is for backward passes, and --forward-only/,
    ],
    [["show", "gpipe", "--costs", "r=2"], /The cost r of stage 0 is 2 of the 1 that its backward takes in all/],
    [["show", "gpipe", "--forward-only", "--two-stage"], /--two-stage splits backward passes, and --forward-only/],
    [["show", "gpipe", "--width", "2"], /--width says how --two-stage places W; add --two-stage/],
    [["show", "gpipe", "--two-stage", "--policy", "some"], /Unknown policy "some"/],
    [["show", "zb-h1", "--two-stage"], /2BP splits full backwards, and zb-h1 has already split some/],
    [["show", "gpipe", "--costs", "f=1,g=2"], /"g=2" is not one of f=NUMBER/],
    [["show", "gpipe", "--costs", "f=-1"], /"f=-1" is not one of f=NUMBER/],
    [["show", "gpipe", "--costs", "comm=Infinity"], /"comm=Infinity" is not one of f=NUMBER/],
    [["show", "gpipe", "--memory", "activations=NaN"], /"activations=NaN" is not one of activations=NUMBER/],
    [["show", "gpipe", "--two-stage", "--policy", "cap:4"], /rank 0 needs 5 even if .* so cap:5 works/],
    [["search", "--cap", "-1"], /It must be a number from 0 up\.\n$/],
    [
      ["show", "gpipe", "--devices", "1024", "--microbatches", "65536"],
      /gpipe would have 1024 stages x 65536 micro-batches/,
    ],
    [["show", "gpipe", "--memory", "released=2"], /releases 2 of 1 activations/],
    [["simulate", "gpipe", "--json", join(folder, "no", "a")], /Cannot write .*: there is no directory/],
    [["simulate", "gpipe", "--json", "-", "--csv", "-"], /--json and --csv both write to -/],
    [["validate", file("empty.csv", "")], /The CSV file holds no action/],
    [["validate", file("z.csv", "0F0,0Z0\n")], /CSV row 1, column 2: unknown action "Z"/],
    [["validate", file("w.csv", "0F0,0W0,0I0\n")], /it needs the input gradient 0I0 first/],
    [
      ["validate", file("one.csv", "0F0,0B0\n"), "--devices", "2"],
      /is a schedule of 1 rank, a row for each, and 2 ranks are asked for/,
    ],
    [
      ["show", "gpipe", "--replicas", "2", "--forward-only"],
      /--replicas sums gradients, and --forward-only leaves none/,
    ],
    [["search", "--cap", "0.5"], /A cap of 0.5 is too small: rank 0 needs 1 /],
    [
      ["show", "gpipe", "--devices", "100", "--microbatches", "200", "--html", join(folder, "x")],
      /draws at most 20000 actions/,
    ],
  ];
  for (const [args, message] of mistakes) {
    const { code, stdout, stderr } = await schedule(...args);
    assert.equal(code, 2, args.join(" "));
    assert.match(stderr, message);
    assert.match(stderr, /^schedule: [^\n]*\n$/, "one line");
    assert.equal(stdout, "");
  }
  const [[args]] = mistakes.slice(-1);
  assert.deepEqual(
    await start("lib/cli/schedule.ts", args).done,
    await schedule(...args),
    "in a process of its own too",
  );
});

test("--help explains every command and flag with exit code 0", async () => {
  assert.match((await schedule("--help")).stdout, /show[^]*validate[^]*simulate[^]*search/);
  for (const command of ["show", "validate", "simulate", "search"]) {
    const { code, stdout } = await schedule(command, "--help");
    assert.equal(code, 0);
    for (const line of stdout.split("\n").filter((line) => /^ {2}--/.test(line))) {
      assert.match(line, /^ {2}--\S+( <\w+>)? {2,}\S/);
    }
  }
});

test("--replicas cuts the devices into pipelines, chooses what is beside what on a host, and says what sums add", async () => {
  const how = ["1f1b-1", "--devices", "256", "--hosts", "32", "--two-stage"];
  const network = ["--network", "gradients=10,message=1,betweenBandwidth=0.5"];
  const run = async (...more: string[]) =>
    JSON.parse((await schedule("simulate", ...how, "--replicas", "8", ...network, ...more, "--json", "-")).stdout);
  const { devices, replicated, sums, makespan } = await run();
  assert.deepEqual([devices, replicated.replicas, replicated.hosts, sums.length], [32, 8, 32, 32]);
  const other = await run("--neighbours", replicated.neighbours === "ranks" ? "replicas" : "ranks");
  assert.ok(makespan < other.makespan, `${makespan}, not ${other.makespan}`);
  // Messages between hosts take twice those inside, and eight sums at once over them 35.
  assert.equal(replicated.neighbours, "ranks");
  assert.ok(Math.abs(sums[0].end - sums[0].start - 35) < 1e-9);
  const { stdout } = await schedule(
    "simulate",
    "interleaved-1f1b",
    "--devices",
    "8",
    "--replicas",
    "2",
    "--network",
    "gradients=6",
  );
  assert.match(stdout, /│ sums │ exposed │/);
  assert.match(
    stdout,
    /\n2 replicas; sums direct: up to 12 a rank, the step is longer by 6 \(50.0 % hidden\). Plain 1F1B/,
  );
});

test("nothing that a terminal obeys comes out of a file, its name or an argument", async () => {
  const name = "a\u001b[31m\u009b2J\u202e\u200bb";
  const bare = join(folder, name);
  writeFileSync(`${bare}.csv`, "0F0,0B0\n");
  writeFileSync(`${bare}.bad.csv`, "0F0,\u001b]0;x\u0007\u202e\n");
  const calls = [
    ["simulate", `${bare}.csv`],
    ["simulate", `${bare}.csv`, "--json", "-"],
    ["show", `${bare}.csv`],
    ["validate", `${bare}.csv`],
    ["validate", `${bare}.csv`, "--microbatches", "7"],
    ["validate", `${bare}.bad.csv`],
    ["validate", `${bare}.missing.csv`],
    ["validate", bare],
    ["validate", folder + name],
    ["validate", "x".repeat(5000)],
    ["validate", "x".repeat(5000) + ".csv"],
    ["validate", "naive", "--devices", name],
    ["validate", "naive", "--devices", "9".repeat(50_000)],
    ["validate", "naive", "--costs", name],
    ["validate", "naive", `--${name}`],
    ["validate", "naive", "--json", join(folder, name, "x")],
    [name],
  ];
  for (const args of calls) {
    const { code, stdout, stderr } = await schedule(...args);
    assert.ok(code === 0 || code === 2, `${code} ${stderr}`);
    // deno-lint-ignore no-control-regex
    assert.doesNotMatch(stdout + stderr, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]/);
    assert.ok(stderr.length < 3000, `${stderr.length}`);
    if (code === 2) assert.match(stderr, /^[^\n]+\n$/);
  }
});

test("blank rows at the end of a file are no devices, transfers that both ranks would wait in are refused", async () => {
  const text = "0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n";
  for (const [name, tail] of [["lines.csv", "\n\n"], ["cells.csv", ",,,,\n"], ["returns.csv", "\r\n\r\n"]]) {
    const { code, stdout } = await schedule("simulate", file(name, text + tail), "--json", "-");
    const { devices, bubbleRatio } = JSON.parse(stdout);
    assert.deepEqual([code, devices, bubbleRatio.toFixed(3)], [0, 2, "0.333"]);
  }
  const between = await schedule("simulate", file("between.csv", "0F0,0B0\n\n1F0,1B0\n"));
  assert.equal(between.code, 2);
  assert.match(between.stderr, /^schedule: [^\n]+\.csv: CSV row 2 has no action and row 3 has; [^\n]+\n$/);
});
