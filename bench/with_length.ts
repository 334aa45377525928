/** Language models by name, for sequences of another length. */
import { createModel, type Model, UserError } from "twobp";
import { llama, llamaConfigurations, mamba, mambaConfigurations } from "twobp/models";

/**
 * A model that predicts the next token, for sequences of so many.
 *
 * @throws {UserError} When it is of another kind.
 */
export function withLength(name: string, length?: number): Model {
  const model = createModel(name);
  if (model.task !== "next-token") {
    throw new UserError(`${name} predicts no next token; of --model the LLaMa-like ones and those of Mamba do`);
  }
  if (length === undefined) return model;
  if (Object.hasOwn(llamaConfigurations, name)) return llama(name, { ...llamaConfigurations[name], length });
  return mamba(name, { ...mambaConfigurations[name], length });
}
