/** Order statistics. */

/** The value below which a share `q` (0 to 1) of the values lies, interpolated; NaN of nothing. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/** The middle value. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Lower and upper quartile. */
export function quartiles(values: readonly number[]): readonly [number, number] {
  return [quantile(values, 0.25), quantile(values, 0.75)];
}

/** Values as reports keep them: to five digits, a hundredth of what a measurement moves by. */
export function kept(values: readonly number[]): number[] {
  return values.map((value) => Number(value.toPrecision(5)));
}
