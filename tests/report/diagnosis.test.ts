import assert from "node:assert/strict";
import { test } from "node:test";
import type { FoundDriver } from "../../lib/gpu/survey.ts";
import type { Diagnosis, Surroundings } from "../../lib/measure/doctor/diagnosis.ts";
import { crash, type Facts, findingsOf, worksAt } from "../../lib/measure/doctor/findings.ts";
import { diagnosisText } from "../../lib/report/diagnosis.ts";

const surroundings: Surroundings = {
  runtimes: [{ name: "Deno", version: "2.9.6", here: true }, { name: "Bun", here: false }],
  missingPackages: [],
  environment: {},
  cores: 8,
  load: 0.5,
  memory: { total: 2 ** 34, free: 2 ** 33 },
  cache: { folder: "/home/someone/.cache/twobp" },
  cards: { nvidia: ["0000:65:00.0"] },
};
const limits = {
  maxBufferSize: 2 ** 32,
  maxStorageBufferBindingSize: 2 ** 31,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupStorageSize: 49_152,
};
const gpu: FoundDriver = {
  driver: "gpu",
  adapter: {
    ...{ name: "NVIDIA H100 80GB HBM3", vendor: "nvidia", cards: ["0000:65:00.0"], subgroups: [32, 32], limits },
    features: ["shader-f16", "timestamp-query", "subgroups", "chromium-experimental-subgroup-matrix"],
  },
  said: [],
};
const none = (driver: FoundDriver["driver"], missing: string, remedy?: string): FoundDriver => ({
  ...{ driver, missing, said: ["/usr/lib/a_driver_with_a_long_name.so: file too short"] },
  ...remedy ? { remedy } : {},
});
const devices = {
  ...{ driver: "gpu", adapter: "NVIDIA H100 80GB HBM3", mode: "real", software: false } as const,
  ...{ f16: true, timestamps: true, subgroupSize: 32, implementation: "dawn", version: "0.6.2" } as const,
};
/** A machine that nothing is wrong with. */
const sound: Facts = {
  ...{ depth: "usual", surroundings, devices, drivers: [gpu, none("system", "Dawn finds no adapter that it can use")] },
  values: [{ what: "sums", dtype: "f32" }, { what: "sums", dtype: "f16" }],
  step: { model: "a LLaMa", schedule: "1f1b-1 with 2BP", losses: [5.5, 4], ms: 3, mixedLosses: [5.5, 4.01] },
  ...{
    together: 0.51,
    passing: { bytes: 2 ** 24, toDevice: 2, toHost: 3, message: 6, smallBytes: 4096, smallMessage: 0.2 },
  },
  rates: { gflops: 50_000, gigabytes: 2500, side: 4096, product: 30_000, halfProduct: 60_000 },
  kernels: { problems: 10, checked: 30, left: 0, faults: [], ms: 9000 },
};
const kernelFault = {
  operation: "matmul",
  problemClass: "64x64x64",
  dtype: "f32",
  candidate: "tile",
  problem: "wrong by 2",
};

test("nothing is said of a sound machine, and each fault of another in words with a remedy; the verdict follows from them", () => {
  assert.deepEqual([findingsOf(sound), worksAt(sound)], [[], true]);
  const deliberate = { ...surroundings, environment: { VK_DRIVER_FILES: "/a.json", TWOBP_DRIVER: "gpu" } };
  assert.deepEqual(findingsOf({ ...sound, surroundings: deliberate }), [], "settings that do no harm");
  const around = (changed: Partial<Surroundings>) => ({ surroundings: { ...surroundings, ...changed } });
  const on = (changed: Partial<Facts["devices"]>) => ({ devices: { ...devices, ...changed } as Facts["devices"] });
  const noGpu = none("gpu", "there is no Vulkan loader (libvulkan.so.1)");
  const cases: [Partial<Facts>, "fault" | "missing" | "slow", RegExp, RegExp, boolean][] = [
    [
      around({ runtimes: [{ name: "Node", version: "18.1.0", here: true }] }),
      "fault",
      /^Node 18\.1\.0 is too old/,
      /20 or newer/,
      true,
    ],
    [
      { devices: undefined, problem: "No WebGPU device, gpu: none" },
      "fault",
      /^Devices cannot be used: No WebGPU device/,
      /TWOBP_DRIVER/,
      false,
    ],
    [
      {
        devices: undefined,
        problem: "none",
        drivers: [noGpu, none("system", "no", "Install mesa")],
        ...around({ cards: {} }),
      },
      ...["fault", /^Devices cannot be used: none\.$/, /^Install mesa\.$/, false] as const,
    ],
    [
      { devices: undefined, problem: "none", ...around({ environment: { TWOBP_DRIVER: "system" } }) },
      ...[
        "fault",
        /^Devices cannot be used/,
        /^Unset TWOBP_DRIVER \(it is "system"\), or set it to gpu\.$/,
        false,
      ] as const,
    ],
    [
      { devices: undefined, problem: "none", ...around({ missingPackages: [{ name: "webgpu", use: "devices" }] }) },
      ...["fault", /^Packages cannot be found: webgpu \(devices\)/, /npm install webgpu/, false] as const,
    ],
    [
      around({ missingPackages: [{ name: "sharp", use: "images" }] }),
      "missing",
      /sharp \(images\)/,
      /npm install sharp/,
      true,
    ],
    [{ problem: "Rank 1 (NVIDIA): device lost" }, "fault", /device lost/, /TWOBP_DRIVER|update/, false],
    [
      { drivers: [noGpu, none("system", "no")], ...around({ environment: { VK_DRIVER_FILES: "/a.json" }, cards: {} }) },
      "missing",
      /VK_DRIVER_FILES is \/a\.json/,
      /^Unset/,
      true,
    ],
    [{ drivers: [noGpu] }, "missing", /GPU of nvidia at 0000:65:00\.0/, /NVIDIA_DRIVER_CAPABILITIES/, true],
    [
      { values: [{ what: "sums", dtype: "f32", problem: "all are 0" }] },
      "fault",
      /computes wrongly in f32: sums: all are 0/,
      /update/,
      false,
    ],
    [
      { values: [{ what: "sums", dtype: "f32" }, { what: "sums", dtype: "f16", problem: "all are 0" }] },
      "fault",
      /in f16/,
      /--precision mixed/,
      true,
    ],
    [
      { step: { ...sound.step!, problem: "the loss does not fall" } },
      "fault",
      /^A training step is wrong/,
      /update/,
      false,
    ],
    [{ step: { ...sound.step!, mixedProblem: "the loss does not fall" } }, "fault", /in mixed precision/, /f32/, true],
    [
      { kernels: { ...sound.kernels!, faults: [{ ...kernelFault, usual: true, reference: false }] } },
      "fault",
      /^Kernel tile of matmul \(64x64x64\) fails: wrong by 2\.$/,
      /^Every run that has matmul takes it/,
      false,
    ],
    [
      { kernels: { ...sound.kernels!, faults: [{ ...kernelFault, usual: false, reference: false }] } },
      "fault",
      /Kernel tile/,
      /nothing to do/,
      true,
    ],
    [around({ cache: { problem: "There is no place" } }), "missing", /no cache/, /--calibrate/, true],
    [on({ f16: false }), "missing", /no 16-bit floats/, /f32/, true],
    [on({ timestamps: false }), "missing", /no timestamps/, /training is not affected/, true],
    [on({ subgroupSize: 0 }), "missing", /no subgroups/, /nothing to do/, true],
    [
      on({ mode: "virtual", notice: "2 devices asked for, 1 GPU found: the devices are virtual" }),
      "missing",
      /1 GPU found/,
      /Add a GPU/,
      true,
    ],
    [on({ implementation: "deno", subgroupSize: 0 }), "missing", /naga, has no subgroups/, /unset TWOBP_WEBGPU/, true],
    [
      on({ implementation: "deno", mode: "virtual", notice: "2 devices asked for, and Deno's WebGPU has one adapter" }),
      ...["missing", /has one adapter: steps are composed/, /unset TWOBP_WEBGPU/, true] as const,
    ],
    [on({ implementation: "deno" }), "slow", /^Deno's WebGPU looks every 10 ms/, /^Unset TWOBP_WEBGPU/, true],
    [on({ driver: "bundled", software: true }), "slow", /bundled driver is in use/, /mesa-vulkan-drivers/, true],
    [on({ driver: "system", software: true }), "slow", /on the processor/, /GPUs/, true],
    [
      { ...on({ driver: "system", software: true }), ...around({ environment: { LP_NUM_THREADS: "8" } }) },
      "slow",
      /LP_NUM_THREADS is 8/,
      /Unset/,
      true,
    ],
    [
      { failures: [{ what: "Rates", problem: "out of memory" }] },
      "fault",
      /^Rates could not be measured: out of memory\.$/,
      /update/,
      true,
    ],
    [{ drivers: [gpu, none("system", crash)] }, "fault", /^The driver "system" crashes\.$/, /TWOBP_DRIVER/, true],
    [{ together: 0.97 }, "slow", /take 0\.97 of the time/, /idle/, true],
    [around({ load: 9.4 }), "slow", /busy: 9\.4 processes want 8 cores/, /idle/, true],
    [around({ memory: { total: 2 ** 34, free: 2 ** 28 } }), "slow", /Only 256 MiB of 16\.0 GiB/, /End other/, true],
    [{ rates: { ...sound.rates!, product: 500 } }, "slow", /reach 1 % of/, /--calibrate/, true],
    [{ rates: { ...sound.rates!, halfProduct: 15_000 } }, "slow", /in f16 are 2\.0 times as slow/, /no time/, true],
  ];
  for (const [changed, kind, what, remedy, works] of cases) {
    const facts = { ...sound, ...changed };
    const found = findingsOf(facts);
    assert.ok(
      found.some((each) => each.kind === kind && what.test(each.what) && remedy.test(each.remedy)),
      `${what} ${JSON.stringify(found)}`,
    );
    assert.equal(worksAt(facts), works, `${what}`);
  }
});

test("the faults of a kernel are one finding, and of many kernels the first are told", () => {
  const faults = Array.from({ length: 30 }, (_, i) => ({
    ...{ ...kernelFault, candidate: `tile${i >> 1}`, problemClass: `${i}` },
    ...{ usual: false, reference: true },
  }));
  const found = findingsOf({ ...sound, kernels: { ...sound.kernels!, faults } });
  assert.equal(found.length, 9);
  assert.equal(found[1].what, "Kernel tile1 of matmul (2 and 1 more) fails: wrong by 2.");
  assert.match(found[1].remedy, /^The other kernels of matmul are compared with it/);
  assert.equal(found[8].what, "7 more kernels fail.");
});

test("faults come first, then what is missing, then what is slow", () => {
  const facts: Facts = {
    ...sound,
    together: 1,
    devices: { ...devices, f16: false },
    values: [{ what: "sums", dtype: "f32", problem: "all are 0" }],
  };
  assert.deepEqual(findingsOf(facts).map(({ kind }) => kind), ["fault", "missing", "slow"]);
});

test("the page fits into 80 and 120 columns, says what works, and keeps what drivers write from the terminal", () => {
  const diagnosis = (facts: Facts): Diagnosis => ({
    schema: 1,
    works: worksAt(facts),
    ...facts,
    findings: findingsOf(facts),
    ms: 4000,
  });
  const odd: Facts = { ...sound, drivers: [gpu, { ...none("system", "no"), said: ["\u001b[31mred"] }], together: 1 };
  for (const width of [80, 120]) {
    for (const facts of [sound, odd]) {
      const text = diagnosisText(diagnosis(facts), width);
      for (const line of text.split("\n")) assert.ok(line.length <= width, `${width}: ${line}`);
      assert.equal(text.includes("\u001b"), false);
    }
  }
  const text = diagnosisText(diagnosis(sound), 120);
  assert.match(text, /^A training step of a pipeline runs here and is right\.\n/);
  assert.match(
    text,
    /gpu: NVIDIA H100 80GB HBM3 \(in use\)\n +nvidia, at 0000:65:00\.0, f16, timestamps, subgroups of 32, matrix units/,
  );
  assert.match(text, /Devices +2 real; at once they take 0\.51 of one after the other/);
  assert.match(text, /Rates +products of 4096 x 4096 matrices 30000 GFLOP\/s in f32, 60000 in f16; at best 50000/);
  assert.match(text, /Kernels +30 on 10 problems in 9 s, all right/);
  assert.match(text, /There is nothing to do\.\n\n4 s\.$/);
  const broken = diagnosisText(diagnosis({ ...sound, devices: undefined, problem: "No WebGPU device" }), 80);
  assert.match(broken, /^A training step of a pipeline does NOT run here as it should\.\n/);
  assert.match(broken, /WRONG +Devices cannot be used: No WebGPU device\.\n +> /);
});
