/** Devices that slow each other, followed from event to event. */
import type { Schedule } from "../../lib/schedules/schedule.ts";

/**
 * Start and end of each action, by rank, where a busy rank makes `1 - lost * others / (ranks - 1)` of an action's work in a
 * unit of time, `others` being the ranks that are busy too. Messages take no time.
 */
export function follow(
  { placement, actions }: Schedule,
  work: (rank: number, index: number) => number,
  lost: number,
): { start: number; end: number }[][] {
  const devices = actions.length, last = placement.length - 1;
  const spans = actions.map(() => [] as { start: number; end: number }[]);
  const made = new Set<string>();
  const running = new Map<number, number>(); // work left, by rank
  let now = 0;
  while (true) {
    for (let rank = 0; rank < devices; rank++) {
      if (running.has(rank)) continue;
      const action = actions[rank][spans[rank].length];
      if (!action) continue;
      const { kind, stage, microbatches: [microbatch] } = action;
      if (kind === "F" && stage > 0 && !made.has(`F${stage - 1}:${microbatch}`)) continue;
      if ((kind === "I" || kind === "B") && stage < last && !made.has(`I${stage + 1}:${microbatch}`)) continue;
      running.set(rank, work(rank, spans[rank].length));
      spans[rank].push({ start: now, end: NaN });
    }
    if (running.size === 0) return spans;
    const rate = 1 - lost * (running.size - 1) / (devices - 1);
    const passed = Math.min(...running.values()) / rate;
    now += passed;
    for (const [rank, left] of running) {
      const rest = left - passed * rate;
      running.set(rank, rest);
      if (rest > 1e-12) continue;
      running.delete(rank);
      spans[rank][spans[rank].length - 1].end = now;
      const { kind, stage, microbatches } = actions[rank][spans[rank].length - 1];
      if (kind !== "W") made.add(`${kind === "F" ? "F" : "I"}${stage}:${microbatches[0]}`);
    }
  }
}
