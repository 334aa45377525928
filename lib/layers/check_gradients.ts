/** A layer's three functions, checked against finite differences and against one another. */
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { openDevices } from "../gpu/devices.ts";
import { callback, expectFields, expectValue, flag, having, listOf, optional, positive } from "../rules.ts";
import { checkHalves, checkKeeping, checkMemory, type CheckRow, checkRuns, checkSlopes } from "./check/checks.ts";
import { run } from "./check/course.ts";
import { keepingOf, type KeptTensor } from "./check/kept.ts";
import { createSubject, type Sides } from "./check/subject.ts";
import type { Layer } from "./layer.ts";

export type { CheckRow, KeptTensor, Sides };

/** How a layer is checked. */
export interface CheckOptions {
  /** Where; by default a device that is opened for it, and closed again. */
  readonly device?: Device;
  /**
   * The x of a micro-batch, as many elements as the shape has, where normal numbers will not do: a `Uint32Array` for a layer of
   * token ids, which then has no dx (see `packIds`), or a `Float32Array`, whose numbers are rounded to what f16 holds.
   */
  readonly input?: (microbatch: number) => Float32Array | Uint32Array;
  /** The side inputs of a micro-batch, for a layer that reads any; a "seed" is there by itself. */
  readonly sides?: (microbatch: number) => Sides;
  /** The most micro-batches that one W is given, 3 by default; all smaller numbers are tried as well. */
  readonly width?: number;
  /** Whether the layer is run in f16 too, where the device has it; true by default. */
  readonly halves?: boolean;
}

/** What {@link checkGradients} has found. */
export interface GradientReport {
  /** Whether every row is. */
  readonly ok: boolean;
  /** What the layer ran on. */
  readonly device: string;
  /** One check a row, f32 first. */
  readonly rows: readonly CheckRow[];
  /** What the layer keeps of a micro-batch after F, for I and W. */
  readonly afterForward: readonly KeptTensor[];
  /** What of it, and of what I makes, is left for W. */
  readonly afterInput: readonly KeptTensor[];
}

/**
 * Checks a layer on x of a shape: the gradients that its I and W give against differences of its own forward; W of several
 * micro-batches, and B, against I and W of single ones; what is written, added to, kept, and given back. In f32 and, where the
 * device has it, in f16 beside f32. All numbers are random and the same in every run; parameters are a little off their initial
 * values. A layer that is wrong makes a report that says so, and no exception.
 *
 * ```ts
 * import { checkGradients, linear } from "twobp/layers";
 *
 * const report = await checkGradients(linear("l", 24, 40, { bias: true }), [16, 24]);
 * for (const { ok, check, where } of report.rows) console.log(ok ? "ok" : "WRONG", check, ok ? "" : where);
 * console.log(report.afterInput.map(({ name, bytes }) => `${name}: ${bytes} bytes wait for W`));
 * ```
 *
 * Take parts rather than a deep whole: where there are kinks (a maximum), f16 may fall on the other side of one after some
 * layers. Take a small shape that does not divide what the kernels divide it by. Tensors of up to 64 elements are looked at everywhere,
 * larger ones at 48 places and along one direction. At a kink steps of several widths may not agree on a
 * derivative; such places are left out, and the row says how many.
 *
 * @throws {UserError} When an option, the shape, or what `input` and `sides` give is not as it should be. What the layer itself
 * throws comes through.
 */
export async function checkGradients(
  layer: Layer,
  shape: readonly number[],
  options: CheckOptions = {},
): Promise<GradientReport> {
  expectValue("checkGradients: the layer", layer, having("outputShape", "forward", "backwardInput"));
  expectValue("checkGradients: the shape", shape, listOf(positive));
  expectFields("checkGradients", options, {
    device: optional(having("dispatch", "read")),
    input: optional(callback),
    sides: optional(callback),
    width: optional(positive),
    halves: optional(flag),
  });
  const { width = 3, halves = true, input } = options;
  const numbers = { inputShape: shape, microbatches: width, input, sides: sidesOf(layer, options, width) };
  const set = options.device ? undefined : await openDevices(1);
  const device = options.device ?? set!.devices[0];
  if (device.gpu.info.dry) {
    throw new UserError("checkGradients: a dry device computes nothing; give one of openDevices()");
  }
  device.submit();
  const mark = device.pool.mark();
  try {
    const subject = await createSubject(layer, device, "f32", numbers);
    const plain = await run(subject), keeping = await keepingOf(subject, plain);
    const rows = [
      ...await checkSlopes(subject, plain),
      ...await checkRuns(subject, plain, width),
      ...checkKeeping(subject, keeping),
      ...await checkMemory(subject),
    ];
    if (halves && device.gpu.info.f16) {
      rows.push(...await checkHalves(await createSubject(layer, device, "f16", numbers), plain, width));
    }
    return {
      ok: rows.every(({ ok }) => ok),
      device: device.gpu.info.name,
      rows,
      afterForward: keeping.afterForward,
      afterInput: keeping.afterInput,
    };
  } finally {
    device.abandon();
    device.pool.rollback(mark); // parameters, and what the layer has forgotten
    set?.close();
  }
}

/** The side inputs that the layer asks for, of each micro-batch: as given, and a seed. */
function sidesOf({ reads }: Layer, { sides = () => ({}) }: CheckOptions, width: number): Sides[] {
  return Array.from({ length: width }, (_, microbatch) => {
    const all: Sides = { seed: new Uint32Array([1, microbatch]), ...sides(microbatch) };
    return Object.fromEntries((reads.sides ?? []).map((name) => {
      if (all[name] instanceof Uint32Array) return [name, all[name]];
      throw new UserError(
        `checkGradients: the layer reads the side input "${name}"; the option sides must give it, ` +
          `as in sides: () => ({ ${name}: new Uint32Array(...) })`,
      );
    }));
  });
}
