import { UserError } from "../../errors.ts";
import { type Action, actionMaker, type Schedule } from "../schedule.ts";
import { interleavedPlacement } from "./placement.ts";

/**
 * Interleaved 1F1B (Narayanan et al., arXiv 2104.04473, section 2.2): `chunks` stages a rank, dealt out in turn, cut the
 * bubble by that factor at the price of as many more transfers and more activations in flight. Micro-batches go through
 * the chunks in rounds of N; where M is no multiple of N, in floor(M / N) equal rounds (at least one), as PyTorch has it.
 *
 * @throws {UserError} When M does not divide into such rounds.
 */
export function interleaved(devices: number, microbatches: number, chunks: number): Schedule {
  const rounds = Math.max(1, Math.floor(microbatches / devices));
  if (microbatches % rounds !== 0) {
    throw new UserError(
      `interleaved-1f1b runs ${microbatches} micro-batches on ${devices} ranks in ${rounds} equal rounds, ` +
        `so their number must be a multiple of ${rounds}; a multiple of ${devices} always works`,
    );
  }
  const round = microbatches / rounds;
  const make = actionMaker(microbatches);
  const actions = Array.from({ length: devices }, (_, rank) => {
    const list: Action[] = [];
    const total = chunks * microbatches;
    const add = (kind: "F" | "B", k: number) => {
      const turn = Math.floor(k / round) % chunks;
      const chunk = kind === "F" ? turn : chunks - 1 - turn;
      list.push(make(kind, chunk * devices + rank, Math.floor(k / (round * chunks)) * round + k % round));
    };
    const warmup = Math.min(total, (chunks - 1) * round + 2 * (devices - 1 - rank));
    for (let k = 0; k < warmup; k++) add("F", k);
    for (let k = 0; k < total; k++) {
      if (k + warmup < total) add("F", k + warmup);
      add("B", k);
    }
    return list;
  });
  return { name: "interleaved-1f1b", placement: interleavedPlacement(devices, chunks), actions };
}
