/** Costs, links, memory, limits and sizes that are none: refused before they make a number. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { PolicyText } from "../../lib/schedules/schedule.ts";
import { withContention } from "../../lib/schedules/price/contention.ts";
import {
  type Costs,
  type Link,
  stageCosts,
  unitCosts,
  withHostOverhead,
  withLinks,
} from "../../lib/schedules/price/costs.ts";
import { fromCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { type StageMemory, unitMemory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { memoryTimeline } from "../../lib/schedules/price/memory_timeline.ts";
import { formatPolicy, parsePolicy, policies } from "../../lib/schedules/transforms/policy.ts";
import { search, type SearchOptions } from "../../lib/schedules/search/search.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";

const base = generate("1f1b-1", { devices: 2 });
const split = twoStage(base);
const sizes = { devices: 2, microbatches: 2 };
/** What is no time and no amount. */
const odd = [NaN, -1, Infinity, -Infinity, undefined, null, "1", 1n] as number[];

/** Whatever takes costs, with costs that are none. */
async function refused(costs: Costs, message: RegExp, split_ = split): Promise<void> {
  const expected = { name: "UserError", message };
  assert.throws(() => simulate(split_, costs), expected, "simulate");
  assert.throws(() => twoStage(base, { costs }), expected, "twoStage fill");
  assert.throws(() => twoStage(base, { costs, policy: "lean" }), expected, "twoStage lean");
  assert.throws(() => twoStage(base, { costs, policy: "cap:99" }), expected, "twoStage cap");
  assert.throws(() => twoStage(base, { costs, policy: "end" }), expected, "twoStage end");
  assert.throws(() => withContention(split_, costs, 1.5), expected, "withContention");
  await assert.rejects(search({ ...sizes, costs }), expected, "search");
}

test("costs of stages and of units are finite numbers of 0 or more, or refused where they are given", () => {
  for (const value of odd) {
    for (const name of ["f", "i", "w", "r", "comm"] as const) {
      if (value === undefined) continue; // the default
      assert.throws(() => unitCosts({ [name]: value }), {
        name: "UserError",
        message: new RegExp(`^The cost ${name} must be a finite number, 0 or more, not `),
      });
    }
    for (const name of ["f", "i", "w", "b", "r"] as const) {
      if ((name === "b" || name === "r") && value === undefined) continue;
      assert.throws(() => stageCosts([{ f: 1, i: 1, w: 1 }, { f: 1, i: 1, w: 1, [name]: value }]), {
        name: "UserError",
        message: new RegExp(`^The cost ${name} of stage 1 must be a finite number, 0 or more, not `),
      });
    }
    if (value !== undefined) {
      assert.throws(() => stageCosts([{ f: 1, i: 1, w: 1 }], value), /^UserError: The time comm of a transfer must be/);
    }
    assert.throws(
      () => withHostOverhead(unitCosts(), value),
      /^UserError: The time that the host takes for an action must be/,
    );
    assert.throws(
      () => withLinks(unitCosts(), () => ({ latency: 0, bandwidth: 1 }), { F: value, I: 1 }),
      /^UserError: The size of an activation must be/,
    );
    assert.throws(
      () => withLinks(unitCosts(), () => ({ latency: 0, bandwidth: 1 }), { F: 1, I: value }),
      /^UserError: The size of a gradient must be/,
    );
  }
});

test("costs that are functions are refused where they give what is no time, by everything that prices", async () => {
  for (const value of odd) {
    for (const kind of ["F", "I", "W"]) {
      const costs = { ...unitCosts(), duration: (action: { kind: string }) => action.kind === kind ? value : 1 };
      await refused(
        costs,
        new RegExp(`^The time of [01]${kind}0 on rank [01] must be a finite number, 0 or more, not `),
      );
    }
    for (const kind of ["F", "I"] as const) {
      const costs: Costs = { ...unitCosts(), transfer: (_, __, of) => of === kind ? value : 1 };
      const what = kind === "F" ? "an activation from rank 0 to rank 1" : "a gradient from rank 1 to rank 0";
      await refused(costs, new RegExp(`^The time of ${what} must be a finite number, 0 or more, not `));
    }
    if (value === undefined || value === null) continue; // no tail
    await refused({ ...unitCosts(), tail: (rank) => rank === 1 ? value : 0 }, /^The tail of rank 1 must be/);
  }
  for (const other of [2, -1, 0.5, NaN]) {
    await refused(
      { ...unitCosts(), tailAfter: () => [other] },
      /^The tail of rank 0 waits for rank \S+; the ranks are 0 to 1$/,
    );
  }
  for (const none of [3, "01", {}, new Set([1])]) {
    const costs = { ...unitCosts(), tailAfter: () => none } as unknown as Costs;
    await refused(costs, /^The tail of rank 0 waits for a list of ranks, not /);
  }
  const wide = twoStage(base, { policy: "end", width: 2 });
  const costs = stageCosts(base.placement.map(() => ({ f: 1, i: 1, w: (width) => width === 2 ? NaN : 1 })));
  assert.throws(
    () => simulate(wide, costs),
    /^UserError: The time of [01]W0\+1 on rank [01] must be a finite number, 0 or more, not NaN/,
  );
  assert.throws(
    () => twoStage(base, { width: 2, policy: "end", costs }),
    /^UserError: The time of [01]W0\+1 on rank [01] must be a finite number, 0 or more, not NaN/,
  );
  await refused(stageCosts([{ f: 1, i: 1, w: 1 }]), /^These are costs of 1 stages, and the schedule has a stage 1$/);
});

test("a link has a latency and a bandwidth, which may be Infinity, or its transfer is refused", async () => {
  const links: [Link, RegExp][] = [
    ...[NaN, 0, -1, "1"].map((bandwidth) =>
      [
        { latency: 0, bandwidth: bandwidth as number },
        /^The bandwidth from rank 0 to rank 1 must be a number above 0, or Infinity/,
      ] as [Link, RegExp]
    ),
    ...odd.map((latency) =>
      [{ latency, bandwidth: 1 }, /^The latency from rank 0 to rank 1 must be/] as [Link, RegExp]
    ),
  ];
  for (const [link, message] of links) {
    await refused(
      withLinks(unitCosts(), (from) => from === 0 ? link : { latency: 0, bandwidth: 1 }, { F: 1, I: 1 }),
      message,
    );
  }
  const endless = withLinks(unitCosts(), () => ({ latency: 2, bandwidth: Infinity }), { F: 1e9, I: 1e9 });
  assert.equal(simulate(base, endless).makespan, simulate(base, unitCosts({ comm: 2 })).makespan);
});

test("contention and overheads are refused where they are none, and costs under contention where the schedule is another", () => {
  for (const slowdown of [NaN, 0.99, -2, Infinity, "2" as unknown as number]) {
    assert.throws(
      () => withContention(base, unitCosts(), slowdown),
      /^UserError: withContention: slowdown must be a finite number, 1 or more, not/,
    );
  }
  const costs = withContention(base, unitCosts(), 1.5);
  assert.throws(
    () => simulate(split, costs),
    /^UserError: These costs are for 1f1b-1 alone, which they were made for$/,
  );
});

test("memory models are refused where an amount is none, by everything that reads them", async () => {
  const good: StageMemory = { activations: 2, derivatives: 1 };
  const bad: [Partial<Record<keyof StageMemory, unknown>>, RegExp][] = [
    ...(["activations", "derivatives"] as const).flatMap((name) =>
      odd.map((value) =>
        [
          { [name]: value },
          new RegExp(`^${name} of stage 1 in the memory model must be a finite number, 0 or more, not `),
        ] as [
          object,
          RegExp,
        ]
      )
    ),
    ...(["whole", "parameters", "gradients", "optimizer", "transfer", "losses", "update"] as const).flatMap((name) =>
      odd.flatMap((value) =>
        value === undefined
          ? []
          : [[{ [name]: value }, new RegExp(`^${name} of stage 1 in the memory`)] as [object, RegExp]]
      )
    ),
    ...[NaN, -Infinity, Infinity, "1"].map((released) =>
      [{ released }, /^released of stage 1 in the memory model must be/] as [object, RegExp]
    ),
    [{ released: 3 }, /^released of stage 1 in the memory model is 3 of 2 activations; it cannot be more$/],
    ...["F", "W", "B"].map((kind) =>
      [
        { workspace: { [kind]: -1 } },
        new RegExp(`^workspace.${kind} of stage 1 in the memory model must be a finite number, 0 or more, not -1`),
      ] as [
        object,
        RegExp,
      ]
    ),
    [{ workspace: { I: NaN } }, /^workspace.I of stage 1 in the memory model must be a finite number, not NaN$/],
    [{ workspace: { I: -1.5 } }, /^workspace.I of stage 1 in the memory model is -1.5; it must be -1 or more$/],
    [{ input: { F: NaN, I: 0 } }, /^input.F of stage 1/],
    [{ messages: { F: 0, I: -1 } }, /^messages.I of stage 1/],
    [{ slots: { activations: -1, derivatives: 0, released: 0 } }, /^slots.activations of stage 1/],
    [{ slots: { activations: 1, derivatives: 0, released: NaN } }, /^slots.released of stage 1/],
    [
      {
        slots: {
          activations: 1,
          derivatives: 0,
          released: 0,
          workspace: { F: NaN, I: 0 },
        },
      },
      /^slots.workspace.F of stage 1/,
    ],
    [
      { slots: { activations: 1, derivatives: 0, released: 0, groups: [{ F: 0, I: 0, W: "1" }] } },
      /^slots.groups.0.W of/,
    ],
    [{ staging: { F: 0, I: -1 } }, /^staging.I of stage 1/],
    [{ shared: { kept: NaN, reused: 0 } }, /^shared.kept of stage 1/],
  ];
  const { spans } = simulate(split);
  const check = async (memory: (stage: number) => StageMemory, message: RegExp) => {
    const expected = { name: "UserError", message };
    assert.throws(() => peakMemory(split, memory), expected);
    assert.throws(() => simulate(split, unitCosts(), memory), expected);
    assert.throws(() => memoryTimeline(split, spans, memory), expected);
    assert.throws(() => twoStage(base, { policy: "cap:99", memory }), expected);
    assert.throws(() => twoStage(base, { policy: "lean", memory }), expected);
    await assert.rejects(search({ ...sizes, memory }), expected);
    await assert.rejects(search({ ...sizes, memory, cap: 99 }), expected);
  };
  for (const [what, message] of bad) {
    await check((stage) => stage === 1 ? { ...good, ...what } as StageMemory : good, message);
  }
  await check((stage) => [good][stage], /^The memory model says nothing of stage 1; the stages are 0 to 1$/);
  // What an I overwrites, and activations that it recomputes, are no mistake.
  peakMemory(split, () => ({ ...good, released: -1, workspace: { I: -1 } }));
});

test("search() takes sizes and limits that mean something, and costs that do not differ between micro-batches", async () => {
  const bad: [Partial<Record<keyof SearchOptions, unknown>>, RegExp][] = [
    ...[0, -1, 1.5, NaN, Infinity, "2", undefined].flatMap((value) => [
      [{ devices: value }, /^A search needs a whole number of devices, 1 or more; got/] as [object, RegExp],
      [{ microbatches: value }, /^A search needs a whole number of micro-batches, 1 or more; got/] as [object, RegExp],
    ]),
    [{ devices: 1e6, microbatches: 1e6 }, /^A search would have 1000000 stages x 1000000 micro-batches; at most/],
    ...[NaN, -1, "4", null].map((cap) =>
      [{ cap }, /^search: cap must be an amount of memory, 0 or more, or Infinity for no limit, not/] as [
        object,
        RegExp,
      ]
    ),
    ...[NaN, 0, -1, 1.5, Infinity].map((budget) =>
      [{ budget }, /^search: budget must be a whole number, 1 or more, not/] as [object, RegExp]
    ),
    [
      { costs: { duration: ({ microbatches: [m] }: { microbatches: number[] }) => 1 + m } },
      /^A search takes every micro-batch at the same cost, and on rank 0 0F1 takes 2, 0F0 1$/,
    ],
    [
      { costs: { duration: (_: unknown, __: unknown, index: number) => 1 + index } },
      /^A search takes every micro-batch at the same cost, and on rank 0 0F1 takes 4, 0F0 1$/,
    ],
  ];
  for (const [what, message] of bad) {
    await assert.rejects(search({ ...sizes, ...what } as SearchOptions), { name: "UserError", message });
  }
  assert.equal((await search({ ...sizes, cap: 0, memory: () => ({ activations: 0, derivatives: 0 }) })).makespan, 7);
});

test("what takes no schedule text or unit costs says what it takes", () => {
  for (const none of [null, 5, [], "f=2"]) {
    assert.throws(() => unitCosts(none as never), {
      name: "UserError",
      message: /^unitCosts takes an object with f, /,
    });
  }
  assert.throws(() => unitCosts({ F: 2 } as never), { name: "UserError", message: /^unitCosts: there is no "F"/ });
  for (const none of [undefined, null, 5, {}]) {
    assert.throws(() => fromCsv(none as never), {
      name: "UserError",
      message: /^A CSV must be a string, not /,
    });
  }
});

test("options that do not exist, and costs and memory that are no functions, are refused", async () => {
  const wrong = { duration: 1 } as unknown as Costs, none = 5 as unknown as () => StageMemory;
  const calls: [() => unknown, RegExp][] = [
    [
      () => generate("gpipe", { devices: 2, microbatch: 4 } as never),
      /^gpipe: there is no "microbatch"; there are devices, micro/,
    ],
    [
      () => generate("gpipe", undefined as never),
      /^gpipe takes an object with devices, microbatches, chunks, not undefined$/,
    ],
    [
      () => twoStage(base, { widht: 2 } as never),
      /^twoStage: there is no "widht"; there are policy, width, costs, memory$/,
    ],
    [() => twoStage(base, { costs: wrong }), /^twoStage: costs must be an object with duration\(\), not an object$/],
    [() => twoStage(base, { policy: "end", memory: none }), /^twoStage: memory must be a function, not 5$/],
    [() => simulate(base, wrong), /^simulate: costs must be an object with duration\(\)/],
    [() => simulate(base, [] as never), /^simulate: costs must be an object with duration\(\), not \[\]$/],
    [() => simulate(base, unitCosts(), none), /^The memory model must be a function, not 5$/],
    [() => peakMemory(base, none), /^The memory model must be a function, not 5$/],
    [() => withContention(base, wrong, 2), /^withContention: costs must be an object with duration/],
  ];
  for (const [call, message] of calls) assert.throws(call, { name: "UserError", message });
  await assert.rejects(
    search({ ...sizes, seconds: 3 } as never),
    /^UserError: search: there is no "seconds"; there are devices/,
  );
  await assert.rejects(search({ ...sizes, costs: wrong }), /^UserError: search: costs must be an object with duration/);
});

test("sizes of schedules that would not fit into memory are refused at once", () => {
  for (const name of ["naive", "1f1b", "zb-v", "interleaved-1f1b"]) {
    assert.throws(
      () => generate(name, { devices: 1e6, microbatches: 1e6 }),
      /would have 1000000 stages x 1000000 micro-batches/,
    );
  }
  assert.throws(
    () => generate("interleaved-1f1b", { devices: 2, chunks: 1e9 }),
    /^UserError: .* would have 2000000000 stages/,
  );
});

test("policies are read to the last digit, and refused where they say nothing", () => {
  const texts = {
    "cap:4.5": "cap:4.5",
    "cap:0.30000000000000004": "cap:0.30000000000000004",
    "cap:1e-3": "cap:0.001",
    "cap:1e+21": "cap:1e+21",
    "cap:64MiB": "cap:67108864",
    "every:2": "every:2",
    "fill": "fill",
    "lean": "lean",
  };
  for (const [text, policy] of Object.entries(texts)) assert.equal(formatPolicy(parsePolicy(text)), policy);
  assert.deepEqual(parsePolicy("every:2"), { kind: "every", count: 2 });
  assert.deepEqual(parsePolicy("cap:1KiB"), { kind: "cap", bytes: 1024 });
  const none = [
    "every:0.5",
    "every:-1",
    "every:1e3",
    `every:${2 ** 60}`,
    "cap:NaN",
    "cap:Infinity",
    "cap:1e999",
    "cap:-1",
    "cap:0.0",
    "cap",
    5,
    null,
  ];
  for (const policy of none) {
    assert.throws(() => parsePolicy(policy as string), /^UserError: Unknown policy/);
    if (policy !== null) {
      assert.throws(
        () => twoStage(base, { policy: policy as PolicyText, memory: unitMemory }),
        /^UserError: Unknown policy/,
      );
    }
  }
});

test("every policy of the table is one, as data and as text, with a value where the table says so", () => {
  for (const { kind, value } of policies) {
    const text = value ? `${kind}:3` : kind, policy = parsePolicy(text);
    assert.equal(policy.kind, kind);
    assert.deepEqual(twoStage(base, { policy }), twoStage(base, { policy: text as PolicyText }));
    assert.equal(twoStage(base, { policy }).policy, text);
    assert.throws(() => parsePolicy(value ? kind : `${kind}:3`), { name: "UserError", message: /^Unknown policy/ });
  }
  assert.throws(() => parsePolicy("soon"), {
    message:
      'Unknown policy "soon"; the policies are fill, lean, select, paper, end, mid, every:K (K micro-batches, 1 or more) and ' +
      "cap:BYTES (1e9 or 64MiB for example)",
  });
  for (const odd of [{ kind: "every", count: 0.5 }, { kind: "cap", bytes: NaN }, { kind: "soon" }, {}]) {
    assert.throws(() => twoStage(base, { policy: odd as never }), /^UserError: Unknown policy/);
  }
});
