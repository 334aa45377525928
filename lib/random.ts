/** Seeded random numbers: the same on every machine and in every runtime. */

/** A stream of random numbers. */
export interface Generator {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Uniform over 0 ... below - 1. */
  integer(below: number): number;
  /** Standard normal. */
  normal(): number;
  /** How many numbers have been drawn, a normal one being two: `generator(seed, drawn)` goes on from here. */
  readonly drawn: number;
}

/** What the state of the stream grows by with each number. */
const increment = 0x6d2b79f5;

/** The stream that belongs to `seed`, from its beginning or behind its first `drawn` numbers; streams of different seeds are unrelated. */
export function generator(seed: number | string, drawn = 0): Generator {
  let state = (hash(String(seed)) + Math.imul(drawn % 2 ** 32, increment)) | 0;
  // mulberry32 (T. Ettinger): 32 bits of state, good enough for initial weights and for drawing batches.
  const next = () => {
    drawn++;
    state = (state + increment) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    uniform: next,
    integer: (below) => Math.floor(next() * below),
    // Box and Muller's transform; 1 - u keeps the logarithm finite.
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    get drawn() {
      return drawn;
    },
  };
}

/** FNV-1a, 32 bits, of a text. */
export function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
