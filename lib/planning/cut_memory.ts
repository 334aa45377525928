/** What the stages of any cut hold, from what each layer holds by itself: near enough to choose a cut by, without a run of each. */
import type { Layer } from "../layers/layer.ts";
import { isTrained, type Parameter } from "../layers/parameter.ts";
import { stageMemories, type StageMemoryOptions } from "../measure/stage_memory.ts";
import type { Model } from "../models/model.ts";
import { withRecompute } from "../runtime/recompute.ts";
import type { Memory, StageMemory } from "../schedules/price/memory.ts";
import { sizeOf } from "../tensor.ts";
import type { Level } from "./fit.ts";

/** A way to run layers: what is recomputed and who makes the sums. */
type Way = Pick<Level, "recompute" | "sums">;

/** What stages of these layers hold, run like these levels; workspaces and messages are the levels' own. */
export type CutMemory = (parts: readonly (readonly Layer[])[]) => Memory;

/**
 * Finds out what each layer of a model holds in the ways of these levels: as a stage by itself, all on one rank, where what one hands
 * to the next counts once. Activations and derivatives of a stage are the sum of its layers' then.
 */
export function cutMemories(
  model: Model,
  options: Omit<StageMemoryOptions, "parts" | "recompute" | "sums" | "stages" | "width" | "placement">,
): (levels: readonly Level[]) => Promise<CutMemory> {
  const { layers } = model, placement = layers.map(() => 0), parts = layers.map((layer) => [layer]);
  const known = new Map<string, Promise<readonly StageMemory[]>>();
  const alone = ({ recompute, sums }: Way) => {
    const [kind] = recompute.split(":") as ["none"], key = `${kind} ${sums}`;
    const made = known.get(key) ?? stageMemories(model, { ...options, placement, parts, recompute: kind, sums });
    known.set(key, made);
    return made;
  };
  const elements = (of: readonly Layer[], which: (parameter: Parameter) => boolean) =>
    of.flatMap(({ parameters }) => parameters.filter(which)).reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const all = { any: elements(layers, () => true), trained: elements(layers, isTrained) };

  return async (levels) => {
    const plain = await Promise.all(levels.map(({ sums }) => alone({ recompute: "none", sums })));
    const ways = await Promise.all(levels.map(alone));
    const [[rest]] = plain; // of the one rank
    const share = (bytes = 0, part: number, whole: number) => whole > 0 ? bytes * part / whole : 0;
    return (cut) => {
      const wrapped = withRecompute(cut, levels.map(({ recompute }) => recompute));
      const ends = cut.reduce((sums, { length }) => [...sums, sums[sums.length - 1] + length], [0]);
      return (stage) => {
        const own = cut[stage], like = levels[stage].memory;
        const tables = own.map((layer, at) => (wrapped[stage][at] === layer ? plain : ways)[stage]);
        const each = tables.map((table, at) => table[ends[stage] + at]);
        const sum = (of: (memory: StageMemory) => number) => each.reduce((total, memory) => total + of(memory), 0);
        // A tensor that two layers keep is counted by both; whether the one that makes it does depends on how that one is run.
        const twice = tables.slice(1).reduce(
          (total, _, before) => total + (tables[before][ends[stage] + before + 1].shared?.kept ?? 0),
          0,
        );
        const derivatives = sum((memory) => memory.derivatives);
        const [any, trained] = [elements(own, () => true), elements(own, isTrained)];
        return {
          ...like,
          activations: sum((memory) => memory.activations) - twice,
          released: sum(({ released = 0 }) => released) - twice,
          whole: sum(({ activations, whole = activations }) => whole) - twice,
          derivatives,
          // What an I needs in all is its layers' workspaces, one after the other, and not more with more layers.
          workspace: { ...like.workspace, I: like.derivatives + (like.workspace?.I ?? 0) - derivatives },
          parameters: share(rest.parameters, any, all.any),
          gradients: share(rest.gradients, trained, all.trained),
          optimizer: share(rest.optimizer, trained, all.trained),
        };
      };
    };
  };
}
