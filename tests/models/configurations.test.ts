import assert from "node:assert/strict";
import { test } from "node:test";
import { bert } from "../../lib/models/bert.ts";
import { llama } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import type { Model } from "../../lib/models/model.ts";
import { createModel, modelNames } from "../../lib/models/registry.ts";
import { resnet } from "../../lib/models/resnet.ts";

const refused = (call: () => unknown, message: string | RegExp) => assert.throws(call, { name: "UserError", message });

interface Family {
  owner: string;
  make(configuration: Record<string, unknown>): Model;
  /** A configuration that is right, and of its fields those that are sizes. */
  right: Record<string, unknown>;
  sizes: string[];
  optional?: string[];
  /** Values that are wrong, and what the error says after the owner. */
  wrong: [Record<string, unknown>, message: string | RegExp][];
}

/** What a constant of 0, below, not finite or no number is refused with. */
const notAbove0 = (owner: string, field: string) =>
  [0, -1e-5, NaN, Infinity, 1e39].map((value): [Record<string, unknown>, string] => [
    { [field]: value },
    `${owner}: ${field} must be a finite number, above 0, not ${value}`,
  ]);

/** What a dropout that is no share below 1 is refused with. */
const noShare = (owner: string) =>
  [1, -0.1, NaN, 1 - 2 ** -53].map((dropout): [Record<string, unknown>, string] => [
    { dropout },
    `${owner}: dropout must be a number, 0 or more and below 1, not ${dropout}`,
  ]);

/** Llama 3.2's. */
const scaling = { factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalLength: 8192 };
const badScalings: [unknown, message: string][] = [
  [null, " takes an object with factor, lowFrequencyFactor, highFrequencyFactor, originalLength, not null"],
  [{ factor: 0.5 }, ": factor must be a finite number, 1 or more, not 0.5"],
  [{ factor: undefined }, ": factor must be a finite number, 1 or more, not undefined"],
  [{ lowFrequencyFactor: 0 }, ": lowFrequencyFactor must be a finite number, above 0, not 0"],
  [{ highFrequencyFactor: NaN }, ": highFrequencyFactor must be a finite number, above 0, not NaN"],
  [{ highFrequencyFactor: 1 }, ": highFrequencyFactor 1 must be above lowFrequencyFactor, which is 1"],
  [{ originalLength: 10.5 }, ": originalLength must be a whole number, 1 or more, not 10.5"],
  [
    { type: "llama3" },
    ': there is no "type"; there are factor, lowFrequencyFactor, highFrequencyFactor, originalLength',
  ],
];

const families: Family[] = [
  {
    owner: 'LLaMa "x"',
    make: (configuration) => llama("x", configuration as never),
    right: {
      ...{ vocabulary: 19, width: 16, blocks: 2, heads: 4, kvHeads: 2, hidden: 10, length: 7 },
      ...{
        headSize: 6,
        epsilon: 1e-6,
        ropeTheta: 500_000,
        ropeScaling: scaling,
        qkvBias: true,
        tied: true,
        dropout: 0.1,
      },
    },
    sizes: ["vocabulary", "width", "blocks", "heads", "hidden", "length", "kvHeads", "headSize"],
    optional: ["kvHeads", "headSize", "epsilon", "ropeTheta", "ropeScaling", "qkvBias", "tied", "dropout"],
    wrong: [
      ...notAbove0('LLaMa "x"', "epsilon"),
      ...notAbove0('LLaMa "x"', "ropeTheta"),
      ...noShare('LLaMa "x"'),
      [{ tied: 1 }, 'LLaMa "x": tied must be true or false, not 1'],
      [{ qkvBias: "yes" }, 'LLaMa "x": qkvBias must be true or false, not "yes"'],
      [
        { heads: 3, kvHeads: 3, headSize: undefined },
        /^blocks\.0\.attention: width 16 over 3 heads gives no even head size; heads must divide/,
      ],
      [{ width: 12, headSize: undefined }, /^blocks\.0\.attention: width 12 over 4 heads gives no even head size/],
      [{ headSize: 3 }, /^blocks\.0\.attention: headSize 3 must be even/],
      ...badScalings.map(([fields, message]): [Record<string, unknown>, string] => [
        { ropeScaling: fields && { ...scaling, ...fields as object } },
        `LLaMa "x": ropeScaling${message}`,
      ]),
      [
        { kvHeads: 3 },
        /^blocks\.0\.attention: 4 query heads cannot share 3 key and value heads evenly; kvHeads must divide/,
      ],
    ],
  },
  {
    owner: 'BERT "x"',
    make: (configuration) => bert("x", configuration as never),
    right: {
      ...{ vocabulary: 19, mask: 18, width: 12, blocks: 2, heads: 4, hidden: 10 },
      ...{ positions: 9, types: 2, length: 7, dropout: 0.1 },
    },
    sizes: ["vocabulary", "width", "blocks", "heads", "hidden", "positions", "types", "length"],
    wrong: [
      ...notAbove0('BERT "x"', "epsilon"),
      [{ mask: 19 }, 'BERT "x": mask 19 is no token of a vocabulary of 19; it must be below'],
      [{ mask: -1 }, 'BERT "x": mask must be a whole number, 0 or more, not -1'],
      [{ length: 10 }, "embeddings: sequences of 10 tokens need more than 9 positions"],
      [{ heads: 5 }, /^blocks\.0\.attention: width 12 over 5 heads gives no whole head size/],
      ...noShare('BERT "x"'),
    ],
  },
  {
    owner: 'Mamba "x"',
    make: (configuration) => mamba("x", configuration as never),
    right: { vocabulary: 19, width: 8, blocks: 1, state: 4, expand: 2, rank: 2, length: 7 },
    sizes: ["vocabulary", "width", "blocks", "state", "expand", "rank", "length"],
    wrong: [
      [{ state: 6 }, "blocks.0.mixer: state 6 must be a multiple of 4"],
      ...notAbove0('Mamba "x"', "epsilon"),
    ],
  },
  {
    owner: 'ResNet "x"',
    make: (configuration) => resnet("x", configuration as never),
    right: { block: "basic", blocks: [1, 2], width: 4, stem: "3x3", size: 8, classes: 3 },
    sizes: ["width", "size", "classes"],
    wrong: [
      ...notAbove0('ResNet "x"', "epsilon"),
      ...[-0.1, 1.1, NaN, "0.1"].map((momentum): [Record<string, unknown>, string] => [
        { momentum },
        `ResNet "x": momentum must be a number from 0 to 1, not ${JSON.stringify(momentum).replace("null", "NaN")}`,
      ]),
      [{ stem: "5x5" }, 'ResNet "x": stem must be one of "7x7", "3x3", not "5x5"'],
      [{ block: "wide" }, 'ResNet "x": block must be one of "basic", "bottleneck", not "wide"'],
      [{ blocks: [] }, 'ResNet "x": blocks must be a list of one or more, each a whole number, 1 or more, not []'],
      [
        { blocks: [1, 0] },
        'ResNet "x": blocks must be a list of one or more, each a whole number, 1 or more, not [1, 0]',
      ],
      [{ blocks: 4 }, 'ResNet "x": blocks must be a list of one or more, each a whole number, 1 or more, not 4'],
    ],
  },
];

for (const { owner, make, right, sizes, optional = [], wrong } of families) {
  test(`${owner.split(" ")[0]}: each size is a whole number of 1 or more`, () => {
    make(right);
    for (const field of sizes) {
      for (const value of [0, -1, 2.5, NaN, Infinity, "8", null, ...(optional.includes(field) ? [] : [undefined])]) {
        const shown = typeof value === "string" ? `"${value}"` : value;
        refused(
          () => make({ ...right, [field]: value }),
          `${owner}: ${field} must be a whole number, 1 or more, not ${shown}`,
        );
      }
    }
    for (const field of optional) make({ ...right, [field]: undefined });
  });

  test(`${owner.split(" ")[0]}: what does not fit together, and fields that there are not, are named`, () => {
    for (const [fields, message] of wrong) refused(() => make({ ...right, ...fields }), message);
    refused(() => make({ ...right, blokcs: 2 }), new RegExp(`^${owner}: there is no "blokcs"; there are .*blocks`));
    refused(() => make(undefined as never), new RegExp(`^${owner} takes an object with .*, not undefined$`));
  });
}

test("createModel() says what there is for any other name", () => {
  for (const name of ["nonsense", "llama_tiny", "LLAMA-TINY", "", "toString", "__proto__", undefined as never]) {
    refused(() => createModel(name), `There is no model "${name}"; there are ${modelNames.join(", ")}`);
  }
});
