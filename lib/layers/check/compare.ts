/** Numbers against what they should be. */

/** How far numbers are from the right ones, and where most. */
export interface Difference {
  /** The largest difference, as a part of the largest right number; infinite for what is no number, or should be 0. */
  readonly error: number;
  /** The element, what it is and what it should be. */
  readonly where: string;
}

/** Compares numbers, all of them or those `at` some places, with the right ones; `name` and `shape` are theirs. */
export function difference(
  name: string,
  shape: readonly number[],
  actual: ArrayLike<number>,
  right: ArrayLike<number>,
  at?: readonly number[],
): Difference {
  let largest = 0, worst = -1, place = 0;
  for (let i = 0; i < right.length; i++) {
    const index = at ? at[i] : i;
    if (Math.abs(right[i]) > largest) largest = Math.abs(right[i]);
    const off = Math.abs(actual[index] - right[i]);
    const size = Number.isNaN(off) ? Object.is(actual[index], right[i]) ? 0 : Infinity : off;
    if (size > worst) [worst, place] = [size, i];
  }
  const index = at ? at[place] : place;
  const error = worst <= 0 ? 0 : worst / largest;
  const [is, should] = [actual[index], right[place]].map((value) => Number(value?.toPrecision(5)));
  return { error, where: `${name}[${position(index, shape)}] is ${is} where ${should} is right` };
}

/** The larger of two differences. */
export function worse(one: Difference, other: Difference): Difference {
  return other.error > one.error ? other : one;
}

function position(index: number, shape: readonly number[]): string {
  const axes: number[] = [];
  for (const length of [...shape].reverse()) {
    axes.unshift(index % length);
    index = Math.floor(index / length);
  }
  return axes.join(", ");
}
