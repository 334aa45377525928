/** What actions, messages and micro-batches cost, as the form says. */
import { type Costs, stageCosts } from "../schedules/price/costs.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { each, type Settings } from "./settings.ts";

/**
 * The costs of a schedule with so many stages on so many ranks.
 *
 * @throws {UserError} For a list that has neither one value nor one for each stage or link.
 */
export function costsOf({ f, i, w, b, r = [0], latency, transfer }: Settings, stages: number, ranks: number): Costs {
  const of = {
    f: each("f", f, stages, "stages"),
    i: each("i", i, stages, "stages"),
    w: each("w", w, stages, "stages"),
    b: b && each("b", b, stages, "stages"),
    r: each("r", r, stages, "stages"),
  };
  const costs = stageCosts(
    Array.from({ length: stages }, (_, stage) => {
      const split = { f: of.f(stage), i: of.i(stage), w: of.w(stage), r: of.r(stage) };
      return of.b ? { ...split, b: of.b(stage) } : split;
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
 * What the stages hold.
 *
 * @throws {UserError} For a list that has neither one value nor one for each stage.
 */
export function memoryOf({ activations, released, derivatives, recomputed }: Settings, stages: number): Memory {
  const of = {
    activations: each("activations", activations, stages, "stages"),
    released: each("released", released, stages, "stages"),
    derivatives: each("derivatives", derivatives, stages, "stages"),
    recomputed: each("recomputed", recomputed, stages, "stages"),
  };
  return (stage) => ({
    activations: of.activations(stage),
    released: of.released(stage),
    derivatives: of.derivatives(stage),
    ahead: { activations: of.recomputed(stage) },
  });
}
