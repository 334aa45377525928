/** Blocks of parameters, cut into a piece for each replica, which makes their sum. */

/** A stretch of a block: elements from `start` on, up to `end`. */
export interface Piece {
  readonly start: number;
  readonly end: number;
}

/**
 * Cuts so many elements into a piece for each replica, as equal as they can be where each starts at a multiple of `grain`, and at one of
 * `starts` where it would lie before the last of these. Of few elements some replicas have none.
 */
export function piecesOf(
  count: number,
  replicas: number,
  grain: number,
  starts: readonly number[] = [],
): readonly Piece[] {
  const grains = Math.ceil(count / grain), last = starts[starts.length - 1] ?? 0;
  const start = (replica: number) => {
    const ideal = Math.min(count, grain * Math.floor(replica * grains / replicas));
    if (ideal >= last) return ideal;
    return starts.reduce((best, each) => Math.abs(each - ideal) < Math.abs(best - ideal) ? each : best);
  };
  return Array.from({ length: replicas }, (_, replica) => ({ start: start(replica), end: start(replica + 1) }));
}

/**
 * The same pieces in buckets: one after the other takes up to `most` elements, a multiple of the grain, off the front of each. So no
 * message is longer than that, and one bucket travels while another is added up.
 */
export function bucketsOf(pieces: readonly Piece[], most: number): readonly (readonly Piece[])[] {
  const longest = Math.max(...pieces.map(lengthOf));
  return Array.from({ length: Math.ceil(longest / most) }, (_, bucket) =>
    pieces.map(({ start, end }) => ({
      start: Math.min(end, start + bucket * most),
      end: Math.min(end, start + (bucket + 1) * most),
    })));
}

/** How many elements a piece has. */
export function lengthOf({ start, end }: Piece): number {
  return end - start;
}
