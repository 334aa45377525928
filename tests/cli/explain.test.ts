/** `schedule explain` as a program, on traces of PyTorch and on one of this project. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { chromeTrace } from "../../lib/report/trace.ts";
import { stageCosts } from "../../lib/schedules/price/costs.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { fromCsv } from "../../lib/schedules/csv/csv.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { program } from "../spawn.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-explain-"));
after(() => rmSync(folder, { recursive: true }));

const { run, close } = program("lib/cli/schedule.ts", { NO_COLOR: "1" });
after(close);
const explain = (...args: string[]) => run("explain", ...args);

const traces = (run: string) => [0, 1].map((rank) => `tests/fixtures/traces/${run}.rank${rank}.json.gz`);

test("traces of PyTorch become tables, a page, a trace of both steps, JSON and the fastest schedule", async () => {
  const [page, trace, csv, json] = ["a.html", "a.trace", "a.csv", "a.json"].map((name) => join(folder, name));
  const { code, stdout, stderr } = await explain(
    ...[...traces("1f1b-1-2bp"), "--also", ...traces("1f1b-1"), "--html", page, "--trace", trace],
    ...["--csv", csv, "--json", json, "--layers", "4,4"],
  );
  assert.equal(code, 0, stderr);
  for (const part of ["ms traced (median of 3)", "because, ms", "on the critical path", "2BP select", "Fastest: "]) {
    assert.ok(stdout.includes(part), part);
  }
  const report = JSON.parse(readFileSync(json, "utf8"));
  for (const { length, ranks } of report.steps) {
    for (const { compute, waiting, messages, host, tail, idle } of ranks) {
      const sum = compute.F + compute.I + compute.W + compute.B + waiting + messages + host + tail + idle;
      assert.ok(Math.abs(sum - length) < 1e-6, `${sum} of ${length}`);
    }
  }
  assert.ok(Math.abs(report.error) < 0.03, `the simulated step is ${report.error} off`);
  const best = fromCsv(readFileSync(csv, "utf8"));
  validate(best);
  assert.equal(report.best.csv, readFileSync(csv, "utf8"));
  const [fastest] = report.alternatives.filter(({ kind }: { kind: string }) => kind !== "partition");
  assert.equal(report.best.schedule, fastest.schedule);
  const { traceEvents } = JSON.parse(readFileSync(trace, "utf8"));
  for (const pid of [0, 1]) {
    const drawn = traceEvents.filter((event: { ph: string; pid: number }) => event.ph === "X" && event.pid === pid);
    assert.equal(drawn.length, 12);
  }
  assert.equal(readFileSync(page, "utf8").match(/Plotly\.newPlot\("figure/g)!.length, 4);
});

test("a trace of this project is explained by its own numbers", async () => {
  const schedule = twoStage(generate("1f1b-2", { devices: 3 }));
  const costs = stageCosts([0, 1, 2].map((stage) => ({ f: 2 + stage, i: 2, w: 3 })), 0.5);
  const simulation = simulate(schedule, costs), path = join(folder, "own.json");
  writeFileSync(path, chromeTrace(schedule, simulation));
  const { code, stdout } = await explain(path, "--json", "-", "--budget", "0");
  assert.equal(code, 0);
  const { steps: [step], error, schedule: name, policy } = JSON.parse(stdout);
  assert.deepEqual([name, policy], ["1f1b-2", "fill"]);
  assert.ok(Math.abs(step.length - simulation.makespan) < 1e-5);
  assert.ok(Math.abs(error) < 1e-3, `${error}`);
  step.ranks.forEach(({ compute }: { compute: Record<string, number> }, rank: number) => {
    const sum = compute.F + compute.I + compute.W;
    assert.ok(Math.abs(sum - simulation.busy[rank]) < 1e-5, `${sum} of ${simulation.busy[rank]}`);
  });
});

test("what is wrong is told in one line with exit code 2, before anything is written", async () => {
  const table = join(folder, "times.csv"), three = join(folder, "three.csv"), page = join(folder, "never.html");
  writeFileSync(three, "stage,kind,ms\n0,F,1\n0,B,2\n1,F,1\n1,B,2\n2,F,1\n2,B,2\n");
  writeFileSync(table, "stage,kind,ms\n0,F,1\n0,B,2\n1,F,1\n1,B,2\n");
  const wrong: [string[], RegExp][] = [
    [[], /missing required argument/],
    [[table, "--html", page], /of no steps/],
    [[traces("1f1b-1")[0]], /all ranks/],
    [[...traces("1f1b-1"), "--layers", "3"], /one number for each stage: 2/],
    [[...traces("1f1b-1"), "--layers", "3,x"], /whole number/],
    [[...traces("1f1b-1"), "--cap", "-1"], /0/],
    [[...traces("1f1b-1"), "--also", three, "--html", page], /the other 3 on 3/],
    [[...traces("1f1b-1"), "--nonsense"], /unknown option/],
  ];
  for (const [args, message] of wrong) {
    const { code, stderr, stdout } = await explain(...args);
    assert.equal(code, 2, args.join(" ") + stdout);
    assert.match(stderr, /^schedule: [^\n]+\n$/);
    assert.match(stderr, message);
  }
  assert.throws(() => readFileSync(page));
});
