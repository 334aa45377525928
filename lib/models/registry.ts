/** Models by name. */
import { UserError } from "../errors.ts";
import { quoted } from "../text.ts";
import { bert, bertConfigurations } from "./bert.ts";
import { llama, llamaConfigurations } from "./llama.ts";
import { mamba, mambaConfigurations } from "./mamba.ts";
import type { Model } from "./model.ts";
import { resnet, resnetConfigurations } from "./resnet.ts";

const makers: Readonly<Record<string, () => Model>> = {
  ...makersOf(llama, llamaConfigurations),
  ...makersOf(bert, bertConfigurations),
  ...makersOf(mamba, mambaConfigurations),
  ...makersOf(resnet, resnetConfigurations),
};

/** Names that {@link createModel} knows: of each family a tiny one for two processor cores, up to the public full size. */
export const modelNames: readonly string[] = Object.keys(makers);

/**
 * A model by its name: a description, from which each pipeline that it is given to makes parameters of its own.
 *
 * @throws {UserError} On an unknown name.
 */
export function createModel(name: string): Model {
  if (!Object.hasOwn(makers, name)) {
    throw new UserError(`There is no model ${quoted(String(name))}; there are ${modelNames.join(", ")}`);
  }
  return makers[name]();
}

function makersOf<Configuration>(
  make: (name: string, configuration: Configuration) => Model,
  configurations: Readonly<Record<string, Configuration>>,
): Record<string, () => Model> {
  return Object.fromEntries(
    Object.entries(configurations).map(([name, configuration]) => [name, () => make(name, configuration)]),
  );
}
