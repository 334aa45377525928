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
