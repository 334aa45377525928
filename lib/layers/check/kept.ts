/** What a layer keeps of a micro-batch, and whether anybody reads it. */
import { type Category, padded } from "../../memory.ts";
import type { DType } from "../../tensor.ts";
import type { Saved } from "../saved.ts";
import { type Outcome, run, spoilTensor } from "./course.ts";
import type { Subject } from "./subject.ts";

/** A tensor that a layer keeps. */
export interface KeptTensor {
  /** Its name; that of a part's tensor has the part's name before a dot. */
  readonly name: string;
  /** Axes, outermost first. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
  /** Bytes of memory, rounded up as buffers are. */
  readonly bytes: number;
  /** What it is counted as. */
  readonly category: Category;
  /** Whether it is the layer's input, its dy, or neither: `x` and `dy` belong to the layers around as well. */
  readonly of: "x" | "dy" | "itself";
}

/** What is kept of a micro-batch after F and after I, and the names of what nobody reads. */
export interface Keeping {
  /** After F, for I and W. */
  readonly afterForward: readonly KeptTensor[];
  /** After I, for W. */
  readonly afterInput: readonly KeptTensor[];
  /** Kept after F, and read by neither I nor W. */
  readonly idleAfterForward: readonly string[];
  /** Kept after I, and not read by W. */
  readonly idleAfterInput: readonly string[];
}

/**
 * Looks at what is kept. Whether a tensor is read is found out by filling it with NaN: dx or a gradient must change, or nobody
 * has read it. Whole numbers are taken for read: as indices NaN could lead a kernel anywhere.
 */
export async function keepingOf(subject: Subject, plain: Outcome): Promise<Keeping> {
  const kept = { F: [] as KeptTensor[], I: [] as KeptTensor[] };
  const marks = new Map<unknown, "x" | "dy">();
  await run(subject, {
    onGiven: (name, tensor) => marks.set(tensor.storage, name),
    look: (after, saved) => kept[after].push(...saved.kept().map((each) => describe(each, marks))),
  });
  const idle = async (after: "F" | "I") => {
    const names: string[] = [];
    for (const { name, dtype } of kept[after]) {
      if (dtype === "u32") continue;
      const spoiled = await run(subject, {
        look(at, saved) {
          if (at === after) spoilTensor(saved.kept().find(([path]) => path === name)![1]);
        },
      });
      if (sameNumbers(spoiled, plain)) names.push(name);
    }
    return names;
  };
  return {
    afterForward: kept.F,
    afterInput: kept.I,
    idleAfterForward: await idle("F"),
    idleAfterInput: await idle("I"),
  };
}

function describe(
  [name, { shape, dtype, bytes, storage }]: ReturnType<Saved["kept"]>[number],
  marks: ReadonlyMap<unknown, "x" | "dy">,
) {
  return {
    name,
    shape,
    dtype,
    bytes: padded(bytes),
    category: storage.category,
    of: marks.get(storage) ?? "itself",
  } as const;
}

function sameNumbers(one: Outcome, other: Outcome): boolean {
  const lists = ({ inputGradients, gradients }: Outcome) => [...inputGradients, ...gradients.end.values()];
  const right = lists(other);
  return lists(one).every((values, index) => values.every((value, i) => Object.is(value, right[index][i])));
}
