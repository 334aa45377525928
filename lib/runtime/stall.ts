/** A rank that is held up after each of its full backwards: what an allocator does that gives everything back each time. */
import { UserError } from "../errors.ts";
import { expectFields, real, type Rules, whole } from "../rules.ts";
import { B, type Program } from "../schedules/program.ts";
import type { Run, Stall } from "./run.ts";

/** A timer takes a longer time for none. */
const longest = 2 ** 31;

/** @throws {UserError} On what is no stall, and a rank that the program does not have, or that runs no B in it. */
export function checkStall(stall: Stall, { devices, first, kind, schedule: { name } }: Program): void {
  const rules: Rules<Stall> = { rank: whole(0, devices - 1), ms: real({ least: 0, below: longest }) };
  expectFields("step: stall", stall, rules);
  const { rank } = stall;
  if (kind.subarray(first[rank], first[rank + 1]).includes(B)) return;
  throw new UserError(
    `step: a stall follows each B of rank ${rank}, and ${name} has none there: its backwards are split`,
  );
}

/**
 * Waits for the rank's device and then for the stall's time, if this node is one that it follows; until then the rank does
 * nothing, and others go on.
 */
export async function standStill({ program, stall, rank: { number, device } }: Run, node: number): Promise<void> {
  if (!stall || stall.rank !== number || program.kind[node] !== B) return;
  await device.idle();
  const end = performance.now() + stall.ms;
  // Timers may ring early.
  for (let left = stall.ms; left > 0; left = end - performance.now()) {
    await new Promise((resolve) => setTimeout(resolve, Math.ceil(left)));
  }
}
