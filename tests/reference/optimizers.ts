/** SGD in float64, as PyTorch has it; `parameters` and `velocity` are updated in place. */
export function sgd(
  parameters: Float64Array,
  velocity: Float64Array,
  gradients: ArrayLike<number>,
  learningRate: number,
  momentum: number,
): void {
  for (let i = 0; i < parameters.length; i++) {
    velocity[i] = momentum * velocity[i] + gradients[i];
    parameters[i] -= learningRate * velocity[i];
  }
}

/** Settings and state of {@link adamw}. */
export interface AdamWState {
  learningRate: number;
  betas: [number, number];
  epsilon: number;
  weightDecay: number;
  mean: Float64Array;
  square: Float64Array;
  /** Steps done. */
  steps: number;
}

/** AdamW in float64, as PyTorch has it; `parameters` and `state` are updated in place. */
export function adamw(
  parameters: Float64Array,
  gradients: ArrayLike<number>,
  decayed: number,
  state: AdamWState,
): void {
  const { learningRate, betas: [beta1, beta2], epsilon, weightDecay, mean, square } = state;
  const t = ++state.steps;
  for (let i = 0; i < parameters.length; i++) {
    if (i < decayed) parameters[i] *= 1 - learningRate * weightDecay;
    mean[i] = beta1 * mean[i] + (1 - beta1) * gradients[i];
    square[i] = beta2 * square[i] + (1 - beta2) * gradients[i] ** 2;
    const correctedMean = mean[i] / (1 - beta1 ** t);
    const correctedSquare = square[i] / (1 - beta2 ** t);
    parameters[i] -= learningRate * correctedMean / (Math.sqrt(correctedSquare) + epsilon);
  }
}

/** Settings and state of {@link lion}. */
export interface LionState {
  learningRate: number;
  betas: [number, number];
  weightDecay: number;
  mean: Float64Array;
}

/** Lion in float64 (arXiv 2302.06675, algorithm 2); `parameters` and `state` are updated in place. */
export function lion(
  parameters: Float64Array,
  gradients: ArrayLike<number>,
  decayed: number,
  { learningRate, betas: [beta1, beta2], weightDecay, mean }: LionState,
): void {
  for (let i = 0; i < parameters.length; i++) {
    const direction = Math.sign(beta1 * mean[i] + (1 - beta1) * gradients[i]);
    parameters[i] -= learningRate * (direction + (i < decayed ? weightDecay * parameters[i] : 0));
    mean[i] = beta2 * mean[i] + (1 - beta2) * gradients[i];
  }
}

/** x [rows, inner] times y [inner, columns]. */
function product(x: Float64Array, y: Float64Array, rows: number, inner: number, columns: number): Float64Array {
  const out = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      for (let k = 0; k < inner; k++) out[r * columns + c] += x[r * inner + k] * y[k * columns + c];
    }
  }
  return out;
}

/** The transpose of x [rows, columns]. */
function transposed(x: Float64Array, rows: number, columns: number): Float64Array {
  return Float64Array.from(x, (_, i) => x[i % rows * columns + Math.floor(i / rows)]);
}

/**
 * Muon in float64, of one matrix [rows, columns], as its authors' code and PyTorch's `Muon` with `match_rms_adamw` have it but for the
 * bfloat16 of their iteration; `parameters` and `mean` are updated in place.
 */
export function muon(
  parameters: Float64Array,
  gradients: ArrayLike<number>,
  [rows, columns]: readonly [number, number],
  { learningRate, momentum, weightDecay, mean }: {
    learningRate: number;
    momentum: number;
    weightDecay: number;
    mean: Float64Array;
  },
): void {
  for (let i = 0; i < mean.length; i++) mean[i] += (1 - momentum) * (gradients[i] - mean[i]);
  let x: Float64Array = Float64Array.from(mean, (value, i) => gradients[i] + momentum * (value - gradients[i]));
  const isTall = rows > columns, [m, n] = isTall ? [columns, rows] : [rows, columns];
  if (isTall) x = transposed(x, rows, columns);
  const norm = Math.max(Math.sqrt(x.reduce((sum, value) => sum + value ** 2, 0)), 1e-7);
  x = x.map((value) => value / norm);
  for (let step = 0; step < 5; step++) {
    const gram = product(x, transposed(x, m, n), m, n, m), squared = product(gram, gram, m, m, m);
    const update = product(gram.map((value, i) => -4.775 * value + 2.0315 * squared[i]), x, m, m, n);
    x = x.map((value, i) => 3.4445 * value + update[i]);
  }
  if (isTall) x = transposed(x, m, n);
  for (let i = 0; i < parameters.length; i++) {
    parameters[i] *= 1 - learningRate * weightDecay;
    parameters[i] -= learningRate * 0.2 * Math.sqrt(Math.max(rows, columns)) * x[i];
  }
}
