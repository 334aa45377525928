/** Operations. */
export type { Kernel } from "../gpu/kernel.ts";
export type { ParameterValues } from "../gpu/parameters.ts";
export { type DType, empty, fromArray, release, retain, type Tensor, toArray, view } from "../tensor.ts";
export {
  type AnyOperation,
  type Candidate,
  type Choices,
  type Observed,
  type Operation,
  type OperationSpec,
  setChoices,
} from "./choice.ts";
export type { RopeScaling } from "./rope.ts";
