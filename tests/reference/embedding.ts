/** Rows of the table, `width` long, looked up by token, in float64. */
export function embedding(ids: ArrayLike<number>, table: ArrayLike<number>, width: number): Float64Array {
  return Float64Array.from(
    { length: ids.length * width },
    (_, i) => table[ids[Math.floor(i / width)] * width + i % width],
  );
}

/** The gradient of {@link embedding} with respect to a table of `vocabulary` rows. */
export function embeddingBackward(
  dy: ArrayLike<number>,
  ids: ArrayLike<number>,
  vocabulary: number,
  width: number,
): Float64Array {
  const dTable = new Float64Array(vocabulary * width);
  for (let i = 0; i < dy.length; i++) dTable[ids[Math.floor(i / width)] * width + i % width] += dy[i];
  return dTable;
}
