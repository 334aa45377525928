import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { adamw, createModel, createPipeline, generate, loadWeights, openDevices, saveWeights } from "twobp";
import { openCorpus } from "twobp/train";
import { readMetrics } from "../../lib/cli/metrics_file.ts";
import { trainCommand } from "../../lib/cli/train_command.ts";
import { explained } from "../../lib/cli/training_failure.ts";
import type { TrainFlags } from "../../lib/cli/training_settings.ts";
import { NotFiniteError } from "../../lib/runtime/transport.ts";
import { start } from "../spawn.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-train-"));
after(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string) => join(root, name);

const text = at("text.txt");
writeFileSync(
  text,
  "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer\n".repeat(3000),
);
const small = ["--data", text, "--samples", "1", "--steps", "4"];

const trainProgram = (...args: string[]) => start("lib/cli/train.ts", args);

/** The lines of a kind. */
function linesOf<Kind extends "update" | "evaluation" | "run" | "end">(path: string, kind: Kind) {
  return readMetrics(path).filter((line) => line.kind === kind) as Extract<
    ReturnType<typeof readMetrics>[number],
    { kind: Kind }
  >[];
}

test("the command makes the updates that steps by hand make, and metrics, JSON and page say them", async () => {
  const [metrics, json, html] = ["m.jsonl", "r.json", "p.html"].map(at);
  const flags = ["--lr", "0.002", "--lr-schedule", "cosine", "--warm-up", "2", "--clip", "1", "--eval-every", "2"];
  const files = ["--metrics", metrics, "--json", json, "--html", html];
  const ended = await trainProgram(...small, ...flags, "--eval-batches", "1", ...files).done;
  assert.equal(ended.code, 0, ended.stderr);
  assert.match(ended.stdout, /4 updates in .* best held-out loss is [\d.]+, after \d updates: all updates are made\./);
  assert.match(
    ended.stderr,
    /4 of 4 updates, 0 s left, loss [\d.]+, lr [\d.e-]+, \d+ tokens\/s, [\d.]+ % of peak, held out/,
  );

  const set = await openDevices(2), model = createModel("llama-tiny");
  const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 0.002 }), seed: 1 });
  const corpus = await openCorpus(text, { heldOut: 0.1 });
  const source = corpus.train({ model, seed: 1 }), held = await corpus.held({ model, seed: 1 }).next(2);
  const schedule = generate("1f1b-1", { devices: 2 });
  const factors = [1 / 2, 1, 1, (1 + Math.cos(Math.PI / 2)) / 2]; // of two steps of warm-up, then half a cosine over two
  const losses: number[] = [], norms: number[] = [], evaluations: number[] = [];
  for (const [step, rate] of factors.entries()) {
    const { loss, gradientNorm } = await pipeline.step(schedule, await source.next(2), { rate, clip: 1 });
    losses.push(loss);
    norms.push(gradientNorm!);
    if (step % 2 === 1) evaluations.push((await pipeline.evaluate(schedule, held)).loss);
  }
  pipeline.close();
  set.close();

  const updates = linesOf(metrics, "update");
  assert.deepEqual(updates.map(({ step }) => step), [1, 2, 3, 4]);
  assert.deepEqual(updates.map(({ loss }) => loss), losses);
  assert.deepEqual(updates.map(({ gradientNorm }) => gradientNorm), norms);
  updates.forEach(({ learningRate }, step) => assert.ok(Math.abs(learningRate! - 0.002 * factors[step]) < 1e-9));
  for (const { ms, perSecond } of updates) assert.ok(Math.abs(perSecond * ms / 1000 - 2 * 64) < 1e-6); // 2 x 64 tokens
  assert.deepEqual(linesOf(metrics, "evaluation").map(({ step, loss }) => [step, loss]), [
    [2, evaluations[0]],
    [4, evaluations[1]],
  ]);
  assert.deepEqual(linesOf(metrics, "end").map(({ ended, steps }) => [ended, steps]), [["steps", 4]]);
  const report = JSON.parse(readFileSync(json, "utf8"));
  assert.deepEqual(report.updates, updates);
  assert.match(report.command, /^train --data /);
  assert.equal(readFileSync(html, "utf8").match(/Plotly\.newPlot\("/g)?.length, 4); // loss, rate, norm, speed
});

test("2BP, other schedules and a file of settings train alike", async () => {
  const losses: number[][] = [];
  const config = at("settings.json");
  writeFileSync(
    config,
    JSON.stringify({ data: text, samples: 1, steps: 4, microbatches: 2, "two-stage": true, policy: "lean" }),
  );
  for (
    const [index, args] of [
      [...small, "--microbatches", "2"],
      ["--config", config],
      ["--config", config, "--policy", "end", "--schedule", "gpipe", "--virtual"],
    ].entries()
  ) {
    const metrics = at(`alike-${index}.jsonl`);
    const ended = await trainProgram(...args, "--metrics", metrics).done;
    assert.equal(ended.code, 0, ended.stderr);
    losses.push(linesOf(metrics, "update").map(({ loss }) => loss));
  }
  assert.equal(losses[0].length, 4);
  assert.ok(losses[0][3] < losses[0][0]);
  for (const other of losses.slice(1)) other.forEach((loss, i) => assert.ok(Math.abs(loss - losses[0][i]) < 1e-5));
});

test("replicas train as one pipeline with as large a batch does, each with its part of the optimizer, and reports say so", async () => {
  const reports = [];
  for (
    const [name, ...args] of [
      ["one", "--devices", "2", "--samples", "2"],
      ["two", "--devices", "4", "--replicas", "2", "--shard-optimizer"],
    ]
  ) {
    const json = at(`replicas-${name}.json`), checked = ["--eval-every", "2", "--eval-batches", "1", "--clip", "1"];
    const ended = await trainProgram(...small, ...args, ...checked, "--two-stage", "--virtual", "--json", json).done;
    assert.equal(ended.code, 0, ended.stderr);
    if (name === "two") {
      assert.match(ended.stdout, /on 4 virtual devices .*, 2 replicas, each of 2 micro-batches of 1 x 64/);
    }
    reports.push(JSON.parse(readFileSync(json, "utf8")));
  }
  const [one, two] = reports;
  for (const what of ["updates", "evaluations"]) {
    const [expected, found] = [one, two].map((report) => report[what].map(({ loss }: { loss: number }) => loss));
    assert.equal(found.length, what === "updates" ? 4 : 2);
    found.forEach((loss: number, i: number) => assert.ok(Math.abs(loss - expected[i]) < 1e-4 * loss, `${what} ${i}`));
  }
  const { settings, peakBytes } = two;
  assert.deepEqual(
    [settings.replicas, settings["optimizer state"], settings["samples of an update"], settings.microbatches],
    [2, "sharded over replicas", 4, 2],
  );
  assert.equal(peakBytes.length, 4);
  for (
    const [args, said] of [
      [["--devices", "4", "--replicas", "3"], /^train: --devices 4 cannot be cut into 3 replicas/m],
      [["--shard-optimizer"], /^train: --shard-optimizer is about several replicas; add --replicas$/m],
      [
        ["--devices", "4", "--replicas", "2", "--virtual", "--budget", "3MB"],
        /^train: --budget 2\.86 MiB: an update needs .* on rank \d of replica \d; /m,
      ],
    ] as const
  ) {
    const { code, stderr } = await trainProgram(...small, ...args).done;
    assert.equal(code, 2, stderr);
    assert.match(stderr, said);
  }
});

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  test(`${signal} ends the training after the update that is under way, and what was asked for is written`, {
    skip: process.platform === "win32",
  }, async () => {
    const folder = mkdtempSync(join(root, "stop-"));
    const [json, html, save] = ["r.json", "p.html", "run"].map((name) => join(folder, name));
    const files = ["--metrics", "-", "--json", json, "--html", html, "--save", save];
    const { child, done, said } = trainProgram(...small, "--steps", "1000000", ...files);
    await said('"step":2,');
    process.kill(child.pid!, signal);
    const { code: ended, stdout, stderr } = await done;
    assert.equal(ended, code, stderr);
    const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    const { kind, ended: why, steps } = lines[lines.length - 1];
    assert.deepEqual([kind, why], ["end", "signal"]);
    const { updates } = JSON.parse(readFileSync(json, "utf8"));
    assert.ok(steps >= 2 && steps === updates.length);
    assert.match(stderr, /: interrupted\. Saved in .*step-\d{6}\.\n/);
    assert.deepEqual(readdirSync(folder).sort(), ["p.html", "r.json", "run"]);
    assert.deepEqual(readdirSync(save), [`step-${String(steps).padStart(6, "0")}`]);
  });
}

test("a model of Hugging Face's files is trained on from its weights, and saved as such", async () => {
  const folder = mkdtempSync(join(root, "from-")), save = join(folder, "run"), metrics = join(folder, "m.jsonl");
  const { width, blocks, heads, kvHeads, hidden, vocabulary, length } = createModel("llama-tiny").configuration;
  const config = {
    ...{ model_type: "llama", hidden_size: width, num_hidden_layers: blocks, num_attention_heads: heads },
    ...{ num_key_value_heads: kvHeads, intermediate_size: hidden, vocab_size: vocabulary, rms_norm_eps: 1e-5 },
    ...{ max_position_embeddings: length, rope_theta: 10_000, tie_word_embeddings: false, hidden_act: "silu" },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const set = await openDevices(2), model = createModel("llama-tiny"), schedule = generate("1f1b-1", { devices: 2 });
  const pipeline = createPipeline(set, model, { optimizer: adamw(), seed: 5 });
  await saveWeights(pipeline, join(folder, "model.safetensors"));
  const corpus = await openCorpus(text);
  const { loss } = await pipeline.evaluate(schedule, await corpus.train({ model, seed: 1 }).next(2));
  const flags = ["--data", text, "--samples", "1", "--steps", "1", "--metrics", metrics, "--save", save];
  const ended = await trainProgram(...flags, "--from", folder, "--optimizer", "muon").done;
  assert.equal(ended.code, 0, ended.stderr);
  const [update] = linesOf(metrics, "update");
  assert.ok(Math.abs(update.loss - loss) < 1e-5, `${update.loss} ${loss}`);
  loadWeights(pipeline, join(save, "step-000001", "model.safetensors"));
  pipeline.close();
  set.close();
});

test("a training that diverges says in one line where, what is left and what may help, and leaves what it has found out", async () => {
  const metrics = at("failed.jsonl"), json = at("failed.json"), save = at("failed");
  const flags = ["--optimizer", "sgd", "--lr", "100000", "--steps", "20", "--metrics", metrics, "--json", json];
  const { code, stderr, stdout } = await trainProgram(...small, ...flags, "--save", save, "--save-every", "1").done;
  assert.equal(code, 2);
  const [{ ended, steps }] = linesOf(metrics, "end"), { updates } = JSON.parse(readFileSync(json, "utf8"));
  assert.deepEqual([ended, steps], ["failure", updates.length]);
  const [last] = readdirSync(save).sort().toReversed(), path = join(save, last);
  assert.equal(last, `step-${String(steps).padStart(6, "0")}`);
  const line = stderr.split("\n").filter((text) => text.startsWith("train: "));
  assert.equal(line.length, 1, stderr);
  const said = `train: Update ${Number(steps) + 1} of 20 failed, the training has diverged: Rank 1 failed at `;
  assert.ok(line[0].startsWith(said), line[0]);
  const left = `; the last checkpoint is ${path}. Try a --lr below 100000, a --warm-up or --clip 1`;
  assert.ok(line[0].endsWith(left), line[0]);
  assert.ok(stderr.endsWith(`${line[0]}\n`), stderr); // nothing comes behind it
  assert.match(stdout, /updates in [\d.]+ s, and then it failed: Update \d+ of 20 failed, /);
});

test("what to say of a failure depends on what had been asked for; another failure is left as it is", () => {
  const found = new NotFiniteError("Rank 1 failed at 1F0: the loss of the micro-batch is NaN");
  const flags = { steps: 9, warmUp: 3, clip: 2, precision: "mixed", save: at("nowhere") } as unknown as TrainFlags;
  const text = (own: object, evaluating = false) =>
    String(explained(found, { ...flags, ...own }, { made: 4, evaluating, learningRate: 0.01 }));
  assert.equal(
    text({}),
    `UserError: Update 5 of 9 failed, the training has diverged: ${found.message}; there is no checkpoint yet. ` +
      "Try a --lr below 0.01, a --warm-up longer than 3, a --clip below 2 or --precision f32",
  );
  assert.match(
    text({ save: undefined }, true),
    /^UserError: The evaluation after update 4 failed, .*; nothing was saved/,
  );
  const other = new Error("the device is lost");
  assert.equal(explained(other, flags, { made: 4, evaluating: false, learningRate: 1 }), other);
});

test("what is recomputed ahead changes no bit of the training", async () => {
  const losses = [];
  for (const ahead of [[], ["--recompute-ahead"]]) {
    const metrics = at(`ahead-${ahead.length}.jsonl`), flags = ["--recompute", "both", "--two-stage", ...ahead];
    const ended = await trainProgram(...small, ...flags, "--metrics", metrics).done;
    assert.equal(ended.code, 0, ended.stderr);
    assert.match(ended.stdout, ahead.length ? /2BP fill, recomputed ahead on 2/ : /2BP fill on 2/);
    losses.push(linesOf(metrics, "update").map(({ loss }) => loss));
  }
  assert.deepEqual(losses[1], losses[0]);
});

test("a step that needs more than the budget is refused before the first, with what it would need", async () => {
  const { code, stderr } = await trainProgram(...small, "--microbatches", "8", "--budget", "6MiB").done;
  assert.equal(code, 2, stderr);
  assert.match(
    stderr,
    /^train: --budget 6\.00 MiB: an update needs [\d.]+ MiB on rank [01]; give fewer --samples [^\n]*\n$/,
  );
});

test("killed without a word and resumed, it ends with the metrics of an undisturbed run, bit for bit", {
  skip: process.platform === "win32",
}, async () => {
  const numbers = (path: string) => [
    linesOf(path, "update").map((
      { step, loss, gradientNorm, learningRate },
    ) => [step, loss, gradientNorm, learningRate]),
    linesOf(path, "evaluation").map(({ step, loss, isBest }) => [step, loss, isBest]),
  ];
  const flags = [
    ...small,
    ...["--steps", "7", "--eval-every", "3", "--eval-batches", "1", "--lr-schedule", "linear", "--clip", "1"],
  ];
  const whole = at("whole.jsonl"), parts = at("parts.jsonl"), save = at("killed"), json = at("killed.json");
  const undisturbed = await trainProgram(...flags, "--metrics", whole).done;
  assert.equal(undisturbed.code, 0, undisturbed.stderr);
  const again = [...flags, "--metrics", parts, "--save", save, "--save-every", "2", "--resume"];
  const first = trainProgram(...again);
  const limit = performance.now() + 60_000;
  while (linesOf(parts, "update").length < 5 && performance.now() < limit) {
    await new Promise((later) => setTimeout(later, 5));
  }
  process.kill(first.child.pid!, "SIGKILL");
  assert.match((await first.done).stdout, /There is no checkpoint yet: from the start\./);
  const second = await trainProgram(...again, "--json", json).done;
  assert.equal(second.code, 0, second.stderr);
  assert.match(
    second.stdout,
    /Goes on after update [2467]\.[^]*7 updates, [0-5] of them now, .*Saved in .*step-000007\./,
  );
  assert.deepEqual(numbers(parts), numbers(whole));
  assert.equal(JSON.parse(readFileSync(json, "utf8")).updates.length, 7); // the page has the curves of both parts
  assert.deepEqual(readdirSync(save).filter((name) => name.startsWith("step-")).sort(), ["step-000006", "step-000007"]);

  const third = await trainProgram(...again).done; // nothing is left to be done
  assert.equal(third.code, 0, third.stderr);
  assert.deepEqual(numbers(parts), numbers(whole));
  const other = await trainProgram(...again, "--samples", "2").done;
  assert.equal(other.code, 2, other.stderr);
  assert.match(other.stderr, /train: .*is of another training: samples is 2 there and 4 here\n$/);
  const fresh = await trainProgram(...again.slice(0, -1)).done;
  assert.match(fresh.stderr, /^train: --save .* has a checkpoint of 7 updates: add --resume to go on from there/);

  const slower = await trainProgram(...again, "--steps", "8", "--lr", "0.0005", "--lr-schedule", "constant").done;
  assert.equal(slower.code, 0, slower.stderr);
  assert.deepEqual(linesOf(parts, "update").at(-1)?.learningRate, 0.0005);
  const unnamed = await trainProgram(...again).done;
  assert.equal(unnamed.code, 2, unnamed.stderr);
  assert.match(
    unnamed.stderr,
    /^train: --resume: .*step-000008 was made with --lr 0\.0005, and the usual one is 0\.001: add --lr 0\.0005 to go on as before, or another\n$/,
  );
});

const config = (name: string, content: string) => {
  writeFileSync(at(name), content);
  return ["--config", at(name)];
};

const forwardOnly = at("forward.csv");
writeFileSync(forwardOnly, "0F0,0F1\n1F0,1F1\n");

/** What is refused, before a device is opened. */
const mistakes: [string, string[], RegExp][] = [
  ["an unknown flag", ["--step", "3"], /unknown option '--step'/],
  [
    "what nothing recomputes ahead",
    ["--recompute", "derivatives", "--recompute-ahead"],
    /^--recompute-ahead runs ahead what a backward recomputes, and --recompute derivatives leaves it nothing/,
  ],
  ["a number out of its range", ["--steps", "0"], /It must be a whole number from 1 to 1000000000/],
  ["an unknown model", ["--model", "llama-big"], /"llama-big" is not one of llama-tiny, /],
  ["two models", ["--model", "llama-tiny", "--from", "x"], /are two models: give one of the two/],
  ["a folder without a model", ["--from", at("none")], /none.config\.json/],
  ["a length of a model that has one", ["--length", "32"], /--length is for a model of --from/],
  ["data that are not there", ["--data", at("none.txt")], /none\.txt cannot be read: there is no such file/],
  ["a tokenizer that is not there", ["--tokenizer", at("none.json")], /none\.json cannot be read/],
  ["texts' flags for images", ["--model", "resnet-tiny", "--tokenizer", "t"], /--tokenizer is for texts/],
  ["an unknown schedule", ["--schedule", "1f1b-9"], /Unknown schedule "1f1b-9"/],
  ["a policy without 2BP", ["--policy", "fill"], /--policy says how --two-stage places W; add --two-stage/],
  ["2BP of what is split by itself", ["--schedule", "zb-h1", "--two-stage"], /zb-h1 is split by itself/],
  ["more stages than layers", ["--schedule", "interleaved-1f1b", "--devices", "16"], /layers/],
  ["a layout that is none", ["--layout", "Et*|L"], /Layout "Et\*\|L": \* at position 3 needs a whole number/],
  ["a layout of another model", ["--layout", "Et*3|t*2,L"], /Layout ".*" has 5 blocks t, and llama-tiny has 4/],
  ["a layout of more stages", ["--layout", "Et|t|ttL"], /--layout ".*" has 3 stages, and 1f1b-1 on 2 ranks has 2/],
  ["a schedule that learns nothing", ["--schedule", forwardOnly], /forward runs forward passes alone/],
  ["weight decay of sgd", ["--optimizer", "sgd", "--weight-decay", "0.1"], /sgd decays no weights/],
  ["momentum of AdamW", ["--momentum", "0.9"], /--momentum is for sgd and muon; adamw/],
  [
    "a warm-up as long as the training",
    ["--lr-schedule", "linear", "--warm-up", "200"],
    /^--warm-up 200 does not fit into --steps 200: linear needs at least one update to fall in$/,
  ],
  ["a warm-up longer than the training", ["--warm-up", "201"], /^--warm-up 201 does not fit into --steps 200$/],
  [
    "a warm-up longer than the training, of a root",
    ["--lr-schedule", "inverse-square-root", "--warm-up", "300"],
    /^--warm-up 300 does not fit into --steps 200$/,
  ],
  [
    "such a warm-up in settings",
    config("f.json", '{"steps": 5, "warm-up": 6}'),
    /^--warm-up 6 does not fit into --steps 5$/,
  ],
  [
    "a field of a text without fields",
    ["--data", text, "--field", "body"],
    /^--field is for JSON lines and Parquet, and /,
  ],
  [
    "makers of sums for a W that nobody delays",
    ["--sums", "w"],
    /^--sums w: 1f1b-1 has no delayed W .* add --two-stage$/,
  ],
  [
    "checkpoints in a folder that is made last",
    ["--out", at("o"), "--save", at("o/run")],
    /^--save .* is in the folder of --out/,
  ],
  [
    "the same from settings",
    config("g.json", JSON.stringify({ out: at("o"), save: at("o") })),
    /^--save .* is in the folder of --out/,
  ],
  ["an alpha without adapters", ["--lora-alpha", "8"], /^--lora-alpha is about adapters; add --lora RANK$/],
  [
    "a folder of adapters without any",
    config("h.json", '{"adapters": "x"}'),
    /^--adapters is about adapters; add --lora RANK$/,
  ],
  [
    "targets that are no expression",
    ["--lora", "2", "--lora-targets", "("],
    /--lora-targets.* It is no regular expression: /,
  ],
  [
    "targets that are none of the model's",
    ["--lora", "2", "--lora-targets", "q_proj"],
    /no projection of llama-tiny is a target; it has blocks\.0\.attention\.q, /,
  ],
  [
    "adapters in a folder that is made last",
    ["--lora", "2", "--adapters", at("o/a"), "--out", at("o")],
    /^--adapters .* of --out/,
  ],
  ["a root without a warm-up", ["--lr-schedule", "inverse-square-root"], /needs --warm-up, 1 or more/],
  ["a fall of a constant rate", ["--lr-end", "0.1"], /constant does not/],
  ["patience without evaluations", ["--patience", "3"], /--patience is about evaluations; add --eval-every/],
  [
    "nothing that could be held out",
    ["--data", text, "--eval-every", "1", "--held-out", "0.000001"],
    /none is held out/,
  ],
  ["resuming from nowhere", ["--resume"], /--resume is about checkpoints; add --save FOLDER/],
  ["saving into a file", ["--save", text], /Cannot (read|write) .*text\.txt/],
  ["two outputs in one file", ["--metrics", "-", "--json", "-"], /--json and --metrics both write to -/],
  ["a folder that is not there", ["--metrics", at("none/m.jsonl")], /there is no directory/],
  ["settings that are not there", ["--config", at("none.json")], /Cannot read --config .*there is no such file/],
  ["settings that are no JSON", config("a.json", "{steps: 3}"), /a\.json is not JSON/],
  ["settings that are a list", config("b.json", "[3]"), /b\.json must hold an object/],
  ["an unknown setting", config("c.json", '{"step": 3}'), /there is no setting "step"; there are model, from, /],
  ["a setting out of its range", config("d.json", '{"steps": 0.5}'), /"steps" is 0\.5: It must be a whole number/],
  ["a setting that is no switch", config("e.json", '{"two-stage": "yes"}'), /"two-stage" must be true or false/],
];

for (const [what, args, message] of mistakes) {
  test(`refused before a device is opened: ${what}`, async () => {
    const command = trainCommand().exitOverride().configureOutput({ writeErr: () => {} });
    await assert.rejects(command.parseAsync(args, { from: "user" }), (error: Error) => {
      assert.match(error.name, /^(UserError|CommanderError)$/, error.stack);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("a mistake is one line and exit code 2, and writes nothing", async () => {
  const folder = mkdtempSync(join(root, "mistake-"));
  const args = [
    "--eval-every",
    "2",
    "--momentum",
    "0.5",
    "--metrics",
    join(folder, "m.jsonl"),
    "--out",
    join(folder, "run"),
  ];
  const { code, stdout, stderr } = await trainProgram(...args).done;
  assert.deepEqual([code, stdout], [2, ""]);
  assert.match(stderr, /^train: --momentum is for sgd and muon; [^\n]*\n$/);
  assert.deepEqual(readdirSync(folder), []);
});
