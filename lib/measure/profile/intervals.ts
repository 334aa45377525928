/** Growing lists of numbers and intervals, of few bytes each: traces have millions of events. */

/** A list of numbers that takes eight bytes for each. */
export class Numbers {
  /** How many there are. */
  length = 0;
  #values = new Float64Array(256);

  /** Adds numbers. */
  push(...values: number[]): void {
    if (this.length + values.length > this.#values.length) {
      const larger = new Float64Array(2 * this.#values.length);
      larger.set(this.#values);
      this.#values = larger;
    }
    for (const value of values) this.#values[this.length++] = value;
  }

  /** The number at a place. */
  at(index: number): number {
    return this.#values[index];
  }

  /** Puts another number in a place. */
  set(index: number, value: number): void {
    this.#values[index] = value;
  }

  /** All of them, in their own memory. */
  values(): Float64Array {
    return this.#values.subarray(0, this.length);
  }
}

/** Intervals nearer than this, in microseconds, are one. */
const near = 5;

/** When a thread was in operations: intervals, those that nest or nearly touch joined as they come. */
export class Cover {
  readonly #bounds = new Numbers();
  #sorted: Float64Array | undefined;

  /** Adds an interval. */
  add(start: number, end: number): void {
    this.#sorted = undefined;
    const bounds = this.#bounds, { length } = bounds;
    if (length > 0 && start >= bounds.at(length - 2) && start <= bounds.at(length - 1) + near) {
      if (end > bounds.at(length - 1)) bounds.set(length - 1, end);
    } else {
      bounds.push(start, end);
    }
  }

  /** The first moment from `from` to before `until` that is in an interval; undefined where none is. */
  first(from: number, until: number): number | undefined {
    const bounds = this.#sorted ??= joined(this.#bounds.values());
    let low = 0, high = bounds.length / 2;
    while (low < high) {
      const middle = low + high >> 1;
      if (bounds[2 * middle + 1] <= from) low = middle + 1;
      else high = middle;
    }
    const start = bounds[2 * low];
    return start < until ? Math.max(start, from) : undefined;
  }
}

/** Intervals in order, none overlapping. */
function joined(bounds: Float64Array): Float64Array {
  const order = Array.from({ length: bounds.length / 2 }, (_, at) => at);
  if (order.some((at) => at > 0 && bounds[2 * at] < bounds[2 * at - 2])) {
    order.sort((a, b) => bounds[2 * a] - bounds[2 * b]);
  }
  const result = new Numbers();
  for (const at of order) {
    const start = bounds[2 * at], end = bounds[2 * at + 1], { length } = result;
    if (length > 0 && start <= result.at(length - 1) + near) {
      if (end > result.at(length - 1)) result.set(length - 1, end);
    } else {
      result.push(start, end);
    }
  }
  return result.values();
}
