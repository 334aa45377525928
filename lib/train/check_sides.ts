/** What is asked of the side inputs of a batch. */
import { UserError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { SideInput } from "../models/side_inputs.ts";
import { described, expectValue, type Rule } from "../rules.ts";
import { sizeOf } from "../tensor.ts";
import { expectFinite, expectLength, expectType, place } from "./check_arrays.ts";
import type { Batch } from "./data.ts";

const record: Rule = {
  right: "arrays by the names of side inputs",
  accepts: (value) =>
    typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value),
};

/**
 * Compares `lengths` and `sides` of a batch with the side inputs that the model describes: names, types, sizes, ranges.
 *
 * @throws {UserError} On the first thing that does not fit: where it is, and what would be right.
 */
export function checkSides({ name: model, takes }: Model, { samples, lengths, sides = {} }: Batch): void {
  const { lengths: lengthsOf, ...others } = takes.sides ?? {};
  if (lengths !== undefined) checkLengths(lengths, samples, model, lengthsOf);
  expectValue("The sides of a batch", sides, record);
  for (const name of Object.keys(sides)) {
    if (Object.hasOwn(others, name)) continue;
    const known = Object.keys(others).join(", ") || "none";
    throw new UserError(`${model} has no side input ${described(name)} that \`sides\` could bring; it has ${known}`);
  }
  for (const [name, side] of Object.entries(others)) {
    if (sides[name] !== undefined) checkSide(name, sides[name], side, samples);
    else if (side.otherwise === undefined) {
      throw new UserError(
        `The batch lacks side input "${name}" of ${model}: \`sides\` must bring ${samples} samples of [${side.shape}], ${side.type}`,
      );
    }
  }
}

function checkSide(name: string, values: unknown, side: SideInput, samples: number): void {
  const { type, shape, least = -Infinity, most = Infinity } = side;
  const what = `Side input "${name}"`;
  expectType(what, values, type);
  expectLength(`numbers of side input "${name}"`, values, samples * sizeOf(shape), `${samples} samples of [${shape}]`);
  const right = `it must be ${rangeOf(side)}`;
  const refusal = (index: number) => `${place(what, index, shape)} is ${values[index]}; ${right}`;
  if (values instanceof Float32Array) expectFinite(values, refusal);
  for (let i = 0; i < values.length; i++) {
    if (!(values[i] >= least && values[i] <= most)) throw new UserError(refusal(i));
  }
}

function rangeOf({ type, least, most }: SideInput): string {
  const kind = type === "u32" ? "a whole number" : "a finite number";
  if (least !== undefined && most !== undefined) return `${kind} from ${least} to ${most}`;
  if (least !== undefined) return `${kind}, ${least} or more`;
  return most === undefined ? kind : `${kind}, ${most} or less`;
}

function checkLengths(lengths: unknown, samples: number, model: string, side: SideInput | undefined): void {
  if (!side) {
    throw new UserError(
      `${model} does not read lengths: leave them out, and mark the targets behind a sample's end as \`ignored\``,
    );
  }
  expectType("Lengths", lengths, "u32");
  expectLength("lengths", lengths, samples, `${samples} samples`);
  const { least = 0, most = 2 ** 32 - 1 } = side;
  for (let i = 0; i < samples; i++) {
    if (lengths[i] >= least && lengths[i] <= most) continue;
    throw new UserError(`Sample ${i} has length ${lengths[i]}; the lengths of ${model} are ${least} to ${most}`);
  }
}
