/** What actions, messages and micro-batches cost, as the form says. */
import { type Costs, stageCosts } from "../schedules/price/costs.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { each, type Settings } from "./settings.ts";

/**
 * The costs of a schedule with so many stages on so many ranks, each of which is so many ranges of the stages that the form means: a
 * range takes an equal part.
 *
 * @throws {UserError} For a list that has neither one value nor one for each stage or link.
 */
export function costsOf(
  { f, i, w, b, r = [0], latency, transfer }: Settings,
  stages: number,
  ranks: number,
  ranges: number,
): Costs {
  const whole = stages / ranges;
  const of = {
    f: each("f", f, whole, "stages"),
    i: each("i", i, whole, "stages"),
    w: each("w", w, whole, "stages"),
    b: b && each("b", b, whole, "stages"),
    r: each("r", r, whole, "stages"),
  };
  const costs = stageCosts(
    Array.from({ length: stages }, (_, range) => {
      const stage = Math.floor(range / ranges), part = (of: (stage: number) => number) => of(stage) / ranges;
      const split = { f: part(of.f), i: part(of.i), w: part(of.w), r: part(of.r) };
      return of.b ? { ...split, b: part(of.b) } : split;
    }),
  );
  const links = Math.max(ranks - 1, 1);
  const latencyOf = each("latency", latency, links, "links"), transferOf = each("transfer", transfer, links, "links");
  return {
    ...costs,
    // Between ranks that are no neighbours the slowest of the links in between counts.
    transfer: (from, to) => {
      let slowest = 0;
      for (let link = Math.min(from, to); link < Math.max(from, to); link++) {
        slowest = Math.max(slowest, latencyOf(link) + transferOf(link));
      }
      return slowest;
    },
  };
}

/**
 * What the stages hold, each of which is so many ranges of those that the form means.
 *
 * @throws {UserError} For a list that has neither one value nor one for each stage.
 */
export function memoryOf(
  { activations, released, derivatives, recomputed }: Settings,
  stages: number,
  ranges: number,
): Memory {
  const whole = stages / ranges;
  const of = {
    activations: each("activations", activations, whole, "stages"),
    released: each("released", released, whole, "stages"),
    derivatives: each("derivatives", derivatives, whole, "stages"),
    recomputed: each("recomputed", recomputed, whole, "stages"),
  };
  return (range) => {
    const part = (of: (stage: number) => number) => of(Math.floor(range / ranges)) / ranges;
    return {
      activations: part(of.activations),
      released: part(of.released),
      derivatives: part(of.derivatives),
      ahead: { activations: part(of.recomputed) },
    };
  };
}
