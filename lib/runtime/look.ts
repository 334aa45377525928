/** A rank's look at its gradients: whether they are finite, and how large they are. */
import { parameterAt, type ParameterBlock } from "../layers/parameter_blocks.ts";
import type { Parameter } from "../layers/parameter.ts";
import { alignment, padded } from "../memory.ts";
import { fill } from "../ops/elementwise.ts";
import { look, readReport, reportLength } from "../ops/look.ts";
import { empty, release, sizeOf, type Tensor, view } from "../tensor.ts";
import type { Rank } from "./run.ts";
import { updatedPiece } from "./shares.ts";

/** What a rank has seen of its gradients. */
export interface Seen {
  /** Name of its first parameter whose gradient is not finite, or too large. */
  readonly notFinite?: string;
  /** The sum of the squares of those that count. */
  readonly squares: number;
}

/** A stretch of a block of gradients that is looked at by itself. */
interface Stretch {
  readonly block: ParameterBlock;
  /** Its first element in the block. */
  readonly start: number;
  readonly length: number;
  /** Whether its squares count. */
  readonly counts: boolean;
}

/**
 * The gradients of a rank, cut where some count and others do not; which do not, `isLeftOut` says. Of what replicas have `summed` each looks
 * at its own piece, where it has the sum of that alone; what all have the first counts.
 */
function stretchesOf(
  { stages, shares, replica }: Rank,
  isLeftOut: (parameter: Parameter) => boolean,
  summed: boolean,
): Stretch[] {
  const stretches: Stretch[] = [];
  for (const [stage, { blocks }] of stages) {
    for (const [at, block] of blocks.entries()) {
      const share = summed ? shares.get(stage)?.[at] : undefined, piece = updatedPiece(block, share, replica);
      const isCounted = (parameter: Parameter) =>
        !isLeftOut(parameter) && (!summed || share?.gathered === false || replica === 0);
      let start = 0;
      const end = (at: number) => block.starts[at] ?? sizeOf(block.gradients.shape);
      for (const [index, parameter] of block.parameters.entries()) {
        const counts = isCounted(parameter), following = block.parameters[index + 1];
        if (following && isCounted(following) === counts) continue;
        const [from, to] = [Math.max(start, piece.start), Math.min(end(index + 1), piece.end)];
        if (from < to) stretches.push({ block, start: from, length: to - from, counts });
        start = end(index + 1);
      }
    }
  }
  return stretches;
}

/** A look under way. */
export interface Look {
  /** Records it, in the pass that is open. */
  record(): void;
  /** Records, behind that pass, the copy of what it has seen to the host; what it returns waits for that, once it is submitted. */
  read(): () => Promise<Seen>;
}

/**
 * Prepares a look at all gradients of a rank, which reads each of them once.
 *
 * @param limit The magnitude from which on a gradient is too large: a power of two, or infinite.
 * @param isLeftOut Says of a parameter whether its gradient is looked at without being counted.
 * @param summed Whether they have been added up over replicas.
 */
export function lookAtGradients(
  rank: Rank,
  limit: number,
  isLeftOut: (parameter: Parameter) => boolean,
  summed: boolean,
): Look {
  const stretches = stretchesOf(rank, isLeftOut, summed);
  return lookAt(
    rank,
    `look of rank ${rank.number}`,
    limit,
    stretches.map(({ block, start, length, counts }) => ({
      tensor: () => view(block.gradients, [length], 4 * start),
      length,
      counts,
      nameAt: (index) => parameterAt(block, start + index).name,
    })),
  );
}

/** Prepares a look at some gradients of a rank, all of which count. */
export function lookAtTensors(rank: Rank, name: string, tensors: readonly Tensor[]): Look {
  const stretches = tensors.map((tensor) => {
    const length = sizeOf(tensor.shape);
    return { tensor: () => view(tensor, [length]), length, counts: true, nameAt: () => name };
  });
  return lookAt(rank, name, Infinity, stretches);
}

/** Some gradients, as a look takes them. */
interface Part {
  /** They themselves: a reference of the caller's. */
  tensor(): Tensor;
  readonly length: number;
  readonly counts: boolean;
  /** The name of the parameter that element `index` is of. */
  nameAt(index: number): string;
}

function lookAt({ device }: Rank, name: string, limit: number, parts: readonly Part[]): Look {
  const lengths = parts.map(({ length }) => reportLength(device, length));
  let words = 0;
  const starts = lengths.map((length) => {
    const start = words;
    words += padded(4 * length) / 4;
    return start;
  });
  const reports = empty(device, [Math.max(alignment / 4, words)], "workspace", "u32");
  return {
    record() {
      fill(reports, 0);
      for (const [index, part] of parts.entries()) {
        const report = view(reports, [lengths[index]], 4 * starts[index]), tensor = part.tensor();
        look(report, tensor, limit);
        release(report, tensor);
      }
    },
    read() {
      const read = device.startRead(reports, name);
      release(reports);
      return async () => {
        const all = new Uint32Array(await read());
        let squares = 0, notFinite: string | undefined;
        for (const [index, { counts, nameAt }] of parts.entries()) {
          const seen = readReport(all.subarray(starts[index], starts[index] + lengths[index]));
          if (counts) squares += seen.squares;
          if (seen.notFiniteAt !== undefined) notFinite ??= nameAt(seen.notFiniteAt);
        }
        return { squares, ...(notFinite === undefined ? {} : { notFinite }) };
      };
    },
  };
}
