/** `schedule plan` with replicas, from the command line to the table and the JSON; and what it and its siblings say of errors. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { errorBar } from "../../lib/measure/error_bar.ts";
import { program } from "../spawn.ts";

const { run: schedule, close } = program("lib/cli/schedule.ts");
after(close);

const links = "speed=0.01,latency=1,bandwidth=1,betweenLatency=10,betweenBandwidth=0.1";
const sizes = ["--model", "llama-tiny", "--devices", "4", "--hosts", "2", "--microbatches", "8"];

test("plan --replicas says where replicas are, what their sums cost, and what each rank of one holds", async () => {
  const given = ["plan", ...sizes, "--replicas", "2", "--budget", "64MiB", "--network", links];
  const { code, stdout, stderr } = await schedule(...given);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^llama-tiny on 2 ranks in 2 replicas, 8 micro-batches of 1, f32 \(predicted\)$/m);
  assert.match(stdout, /^2 replicas, neighbours on a host are .*: their sums make the step [\d.]+ % of itself longer/m);
  assert.equal(stdout.match(/^│ +\d+ │/gm)?.length, 2);
  const json = await schedule(...given, "--json", "-");
  const { replicated, devices, peak, makespan, plain } = JSON.parse(json.stdout);
  assert.deepEqual([replicated.replicas, replicated.hosts, devices, peak.length], [2, 2, 4, 2]);
  assert.ok(makespan <= plain && replicated.exposedSums >= 0 && replicated.exposedSums < makespan);
});

test("plan --replicas without links, or with more ranks than a pipeline may have, is refused in one line", async () => {
  for (
    const [more, message] of [
      [["--replicas", "2"], /^schedule: plan: nothing says what sums over replicas take; give `network`/],
      [["--replicas", "3", "--network", links], /3 replicas cannot have equal shares of 4 devices/],
      [["--replicas", "2", "--devices", "256", "--network", links], /makes pipelines of 128 ranks; 64 is the most/],
      [["--replicas", "2", "--network", "speed=1"], /--network needs bandwidth=NUMBER above 0/],
    ] as const
  ) {
    const { code, stderr } = await schedule("plan", ...sizes, "--budget", "64MiB", ...more);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
  }
});

const folder = mkdtempSync(join(tmpdir(), "twobp-plan-"));
after(() => rmSync(folder, { recursive: true }));

test("a plan of counted work says how far it may be off, on other devices not known; simulated unit costs are exact and say nothing", async () => {
  const given = ["plan", "--model", "llama-tiny", "--devices", "2", "--budget", "1GiB"];
  const [{ stdout }, json] = [await schedule(...given), await schedule(...given, "--json", "-")];
  assert.match(stdout, /^Times are counted work: .* may be \d+ % off \(.*\)\. Of GPUs nothing is known/m);
  assert.equal(JSON.parse(json.stdout).errorBar.ratio, errorBar(1, "counted"));
  const exact = await schedule("simulate", "1f1b", "--devices", "2", "--json", "-");
  assert.doesNotMatch(exact.stderr, /off|\+-/);
  assert.ok(!("errorBar" in JSON.parse(exact.stdout)));
});

test("with the times of a cluster file plan, simulate and search say that their error is not known, in JSON too", async () => {
  const file = join(folder, "cluster.json"), stage = { f: 1, i: 1, w: 1, b: 2 };
  writeFileSync(file, JSON.stringify({ schema: 1, ranks: 2, stages: [stage, stage] }));
  for (
    const args of [["plan", "--model", "llama-tiny", "--budget", "1GiB"], ["simulate", "1f1b"], ["search", "1f1b"]]
  ) {
    const { code, stdout, stderr } = await schedule(...args, "--cluster", file, "--json", "-");
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^How far these (times|steps) may be off is not known: /m);
    assert.equal(JSON.parse(stdout).errorBar, null);
  }
});
