/** Synthetic images, drawn where no others are given: for learning to fall at, not for claims about vision. */
import { anything, expectFields, positive, u32 } from "../rules.ts";
import { type Batch, expectSamples, type PositionedSource } from "./data.ts";
import { batchOf, normalise } from "./images.ts";
import { type Generator, generator } from "../random.ts";
import { positionOf, type SourcePosition, stateFrom } from "./position.ts";

/**
 * Synthetic images without end, [size, size, 3]: stripes of chance width, phase and contrast under noise. The class shows in
 * their direction (of `classes` between 0 and 180 degrees), and less clearly in their hue: colour is learned within a few dozen
 * steps, direction after it.
 *
 * @throws {UserError} When `size` or `classes` is no whole number of 1 or more, `seed` no u32, or `from` the position of another
 * source.
 */
export function syntheticImages(
  options: { size: number; classes: number; seed: number; from?: SourcePosition },
): PositionedSource<Batch> {
  expectFields("syntheticImages", options, { size: positive, classes: positive, seed: u32, from: anything });
  const { size, classes, seed, from } = options;
  const identity = { size, classes, seed };
  const { numbers } = stateFrom("syntheticImages", identity, { numbers: 0 }, from);
  const random = generator(`synthetic:${seed}`, numbers);
  return {
    position: () => positionOf("syntheticImages", identity, { numbers: random.drawn }),
    next(samples) {
      expectSamples(samples);
      return batchOf(Array.from({ length: samples }, () => {
        const target = random.integer(classes);
        return { pixels: normalise(stripes(size, target / classes, random)), target };
      }));
    },
  };
}

/** `turn` is the class, from 0 to 1: half a turn of the stripes and a whole one around the colour circle. */
function stripes(size: number, turn: number, random: Generator): Float32Array {
  const [x, y] = [Math.cos(Math.PI * turn), Math.sin(Math.PI * turn)];
  const frequency = 2 * Math.PI / (4 + 4 * random.uniform()); // 4 to 8 pixels from one stripe to the next
  const phase = 2 * Math.PI * random.uniform();
  const hue = 2 * Math.PI * turn + 0.5 * random.normal();
  const contrast = 0.2 + 0.3 * random.uniform();
  const rgb = new Float32Array(size * size * 3);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const share = 0.5 + 0.5 * Math.sin(frequency * (x * column + y * row) + phase);
      for (let colour = 0; colour < 3; colour++) {
        const tint = 0.15 * Math.cos(hue - 2 * Math.PI * colour / 3);
        rgb[(row * size + column) * 3 + colour] = 0.4 + tint + contrast * (share - 0.5) + 0.1 * random.normal();
      }
    }
  }
  return rgb;
}
