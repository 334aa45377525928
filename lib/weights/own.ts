/** Models of no family: their checkpoints have their own names and layouts. */
import { type Family, same } from "./reference.ts";

/**
 * Names and layouts of a model of one's own: each parameter and buffer under its name, as it lies. Nothing but tensors is compared when
 * such a checkpoint is loaded: of constants that no tensor shows, only the model's owner knows.
 */
export const ownFamily: Family = {
  title: "one's own",
  references: (parameter) => same(parameter.name, parameter),
  rename: (name) => name,
  types: [],
  settings: () => [],
  values: () => ({}),
};
