/**
 * The time of a W of a width that is perhaps not known, from those that are: on a straight line between its neighbours, and
 * beyond the widest, or below the narrowest, as much a micro-batch as there.
 *
 * @param known Times by width, at least one.
 */
export function weightTime(known: Readonly<Record<number, number>>, width: number): number {
  const points = Object.entries(known).map(([each, time]) => [Number(each), time] as const).sort(([a], [b]) => a - b);
  const above = points.findIndex(([each]) => each >= width);
  if (above <= 0) {
    const [near, time] = above === 0 ? points[0] : points[points.length - 1];
    return width / near * time;
  }
  const [[from, low], [to, high]] = [points[above - 1], points[above]];
  return low + (width - from) / (to - from) * (high - low);
}
