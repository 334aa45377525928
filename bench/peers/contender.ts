/** What the programs compared here have in common. */

/** Initial parameters by name, as `Pipeline.parameters` gives them, with their shapes. */
export type Weights = ReadonlyMap<
  string,
  { readonly shape: readonly number[]; readonly data: Float32Array }
>;

/** Token ids and the ids that follow them, [batch x length] each. */
export interface Tokens {
  /** What the model sees. */
  readonly inputs: Uint32Array;
  /** What it is to say. */
  readonly targets: Uint32Array;
}

/** A prepared computation, to be run over and over. */
export interface Job<Result> {
  /** Runs it once, to the moment when the device has finished. */
  run(): Promise<Result>;
  /** Frees what it holds. */
  close(): void;
}

/** C = A B, `times` times in one run. */
export interface MatmulJob extends Job<void> {
  /** The product, to be compared. */
  product(): Promise<Float32Array>;
}

/** Training steps on one batch; each run returns the loss before its update. */
export interface TrainingJob extends Job<number> {
  /** The gradients at the parameters as they are. */
  gradients(): Promise<Map<string, Float32Array>>;
}

/** A library, opened on a device of its own. */
export interface Contender {
  /** Name in tables. */
  readonly name: string;
  /** Its version. */
  readonly version: string;
  /** A product of [m, k] and [k, n]. */
  matmul(
    size: readonly [number, number, number],
    a: Float32Array,
    b: Float32Array,
    times: number,
  ): Promise<MatmulJob>;
  /** Training of the model of `gpt.ts`. */
  training(weights: Weights, tokens: Tokens): Promise<TrainingJob>;
  /** Frees the device. */
  close(): void;
}
