/** Side inputs: what a batch brings along besides the first layer's input, as a model describes it. */
import { UserError } from "../errors.ts";
import { expectFields, expectValue, oneOf, optional, positive, type Rule, u32 } from "../rules.ts";

/**
 * What each sample brings along besides the first layer's input: a mask, a second input, a weight. Any layer, and the loss, reads it
 * by its name on whatever stage it is, with `Saved.side`, as a tensor [samples, ...shape] of this type, f32 in mixed precision too.
 */
export interface SideInput {
  /** "u32" in a Uint32Array, "f32" in a Float32Array, whose numbers must be finite. */
  readonly type: "u32" | "f32";
  /** Axes of one sample's part; none for a single number. */
  readonly shape: readonly number[];
  /** The least that each number may be; by default any. */
  readonly least?: number;
  /** The most; by default any. */
  readonly most?: number;
  /** What each number is where a batch brings none; where it is left out every batch must. */
  readonly otherwise?: number;
}

/** Side inputs by name. */
export type SideInputs = Readonly<Record<string, SideInput>>;

const record: Rule = {
  right: "side inputs by name",
  accepts: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
};
const shape: Rule = {
  right: "a list of axes, each a whole number, 1 or more",
  accepts: (value) => Array.isArray(value) && value.every((axis) => positive.accepts(axis)),
};
const finite: Rule = { right: "a finite number", accepts: (value) => Number.isFinite(value) };

/**
 * Refuses side inputs that mean nothing, and those that layers or the loss of a model read without its describing them.
 *
 * @throws {UserError} Names the model, the side input and what would be right.
 */
export function checkSideInputs(model: string, sides: SideInputs = {}, read: readonly string[]): void {
  expectValue(`\`takes\` of ${model}: sides`, sides, record);
  for (const [name, side] of Object.entries(sides)) {
    const owner = `Side input "${name}" of ${model}`;
    if (name === "seed") throw new UserError(`${owner} has the name of one that every batch has; give it another`);
    const number = optional(side?.type === "u32" ? u32 : finite);
    expectFields(owner, side, {
      type: oneOf(["u32", "f32"]),
      shape,
      least: number,
      most: number,
      otherwise: number,
    });
    const { type, least = -Infinity, most = Infinity, otherwise = least } = side;
    if (!(least <= most && otherwise <= most && (otherwise >= least))) {
      throw new UserError(
        `${owner} must have least, otherwise and most in this order, not ${least}, ${otherwise}, ${most}`,
      );
    }
    if (name === "lengths" && (type !== "u32" || side.shape.length > 0 || side.otherwise === undefined)) {
      throw new UserError(
        `${owner} is the batch's \`lengths\`, which may be left out: its type must be "u32", its shape [], and \`otherwise\` given`,
      );
    }
  }
  const unknown = read.find((name) => name !== "seed" && !Object.hasOwn(sides, name));
  if (unknown !== undefined) {
    const known = ["seed", ...Object.keys(sides)].join(", ");
    throw new UserError(`${model} reads a side input "${unknown}" without describing it; it describes ${known}`);
  }
}
