/** One action of a schedule: what it receives, records and sends. */
import { alignment, type Device } from "../gpu/device.ts";
import type { WaitHistory } from "../gpu/poll.ts";
import { lossBackward, lossForward } from "../layers/cross_entropy.ts";
import { backwardInput, backwardWeight, forward } from "../layers/run.ts";
import { createGroup, createSaved, type Group, releaseGroup, type Saved, slotIn } from "../layers/saved.ts";
import type { Model } from "../models/model.ts";
import type { Action } from "../schedules/schedule.ts";
import { empty, fromArray, release, retain, type Tensor, view, writeArray } from "../tensor.ts";
import { type Batch, microbatchOf } from "../train/data.ts";
import type { Channels } from "./channel.ts";
import type { Plan } from "./plan.ts";
import type { Stage } from "./stage.ts";

/** The state of a step under way. */
export interface Step {
  readonly model: Model;
  readonly stages: readonly Stage[];
  readonly channels: Channels;
  readonly plan: Plan;
  readonly batch: Batch;
  readonly microbatches: number;
  /** Shape of each stage's input for one micro-batch; last, that of the logits. */
  readonly shapes: readonly (readonly number[])[];
  /** One row for each micro-batch, as wide as a view's alignment; the sum of its rows' losses stands in the first column. */
  readonly losses: Tensor;
  /** [1]: what the gradient of a row's loss is multiplied by; see `ExecutorContext.lossGradient`. */
  readonly lossGradient: Tensor;
  /** What each micro-batch in flight keeps, by stage and micro-batch. */
  readonly saved: Map<string, Saved>;
  /** Groups in flight, by the W or B that ends them. */
  readonly groups: Map<Action, Group>;
  /** How long a wait of this name took in the last steps of this schedule. */
  historyOf(name: string): WaitHistory;
  /** Tensors on their way between two stages of one rank. */
  readonly handed: Map<string, Tensor>;
}

/** What goes in and out of an action besides its kernels. */
interface Traffic {
  /** A message to wait for, and where it goes: a reference of its own, to be released after the submission. */
  receive?: { key: string; target: Tensor };
  /** Posts what the action sends, once it is submitted. */
  post?: () => void;
}

/**
 * Records the action's kernels in one pass (opened by `beginPass`) and submits them when the action's input has come. The
 * recording is made before the wait, so that the host's part of it (a millisecond or two) is over when the GPU could start.
 */
export async function runAction(step: Step, device: Device, action: Action, beginPass: () => void): Promise<void> {
  const { receive, post } = recordAction(step, action, beginPass);
  const commands = device.finish();
  if (receive) await step.channels.receive(receive.key, receive.target);
  device.submit(commands);
  if (receive) release(receive.target);
  post?.();
}

function recordAction(step: Step, action: Action, beginPass: () => void): Traffic {
  const stage = step.stages[action.stage];
  const [microbatch] = action.microbatches;
  if (action.kind === "F") return recordForward(step, stage, microbatch, beginPass);
  if (action.kind === "W") {
    beginPass();
    recordBackwardWeight(step, stage, action);
    return {};
  }
  const { receive, dx } = recordBackwardInput(step, stage, microbatch, beginPass);
  // The gradient leaves after the whole backward: sent any earlier, the baseline would be 2BP already.
  if (action.kind === "B") recordBackwardWeight(step, stage, action);
  return { receive, post: dx && send(step, "I", stage.index, microbatch, dx) };
}

function recordForward(step: Step, stage: Stage, microbatch: number, beginPass: () => void): Traffic {
  const { device, layer, index } = stage;
  const saved = savedOf(step, index, microbatch);
  const { inputs, targets } = microbatchOf(step.batch, microbatch, step.microbatches);
  const { receive, tensor: x } = index === 0
    ? { receive: undefined, tensor: uploadInput(step, stage, microbatch, inputs) }
    : given(step, "F", index, microbatch);
  if (index < step.stages.length - 1) {
    const y = outgoing(step, "F", index, microbatch);
    beginPass();
    forward(layer, y, x, saved);
    release(x);
    return { receive, post: send(step, "F", index, microbatch, y) };
  }
  const wanted = fromArray(device, [targets.length], targets, "activations");
  const logits = empty(device, step.shapes[index + 1], "activations", stage.dtype);
  const loss = view(step.losses, [1], microbatch * alignment);
  beginPass();
  forward(layer, logits, x, saved);
  lossForward(loss, logits, wanted, saved.child("loss"));
  release(x, wanted, logits, loss);
  return { receive };
}

/** Records I; `dx` is the gradient to send, which stage 0 has none of. */
function recordBackwardInput(step: Step, stage: Stage, microbatch: number, beginPass: () => void) {
  const { layer, index } = stage;
  const saved = savedOf(step, index, microbatch);
  const isLast = index === step.stages.length - 1;
  const { receive, tensor: dy } = isLast
    ? { tensor: incoming(step, "I", index, microbatch) }
    : given(step, "I", index, microbatch);
  const dx = index > 0 ? outgoing(step, "I", index, microbatch) : undefined;
  beginPass();
  if (isLast) lossBackward(dy, step.lossGradient, saved.child("loss"));
  backwardInput(layer, dx, dy, saved);
  release(dy);
  return { receive, dx };
}

/** Records the weight gradient of all the action's micro-batches, and ends their stay. */
function recordBackwardWeight(step: Step, stage: Stage, action: Action): void {
  const saved = action.microbatches.map((microbatch) => savedOf(step, stage.index, microbatch));
  backwardWeight(stage.layer, saved);
  for (const [at, microbatch] of action.microbatches.entries()) {
    saved[at].clear();
    step.saved.delete(`${stage.index}:${microbatch}`);
  }
  releaseGroup(step.groups.get(action)!);
  step.groups.delete(action);
}

function savedOf(step: Step, stage: number, microbatch: number): Saved {
  const key = `${stage}:${microbatch}`;
  let saved = step.saved.get(key);
  if (!saved) {
    const { action, position, size } = step.plan[stage][microbatch];
    let group = step.groups.get(action);
    if (!group) {
      step.groups.set(action, group = createGroup(step.stages[stage].placed, size, action.kind === "W"));
    }
    step.saved.set(key, saved = createSaved(group, position, sidesOf(step, step.stages[stage], microbatch)));
  }
  return saved;
}

/** Uploads the side inputs that the stage's layers ask for. */
function sidesOf(step: Step, { device, layer }: Stage, microbatch: number): Map<string, Tensor> {
  const { samples, lengths, seed = 0, inputs } = microbatchOf(step.batch, microbatch, step.microbatches);
  return new Map(
    layer.reads.sides?.map((name) => {
      const data = name === "seed"
        ? Uint32Array.of(seed, microbatch * samples)
        : lengths ?? new Uint32Array(samples).fill(inputs.length / samples);
      return [name, fromArray(device, [data.length], data, "activations")];
    }),
  );
}

/** The first stage's input, in a slot where W will read it. */
function uploadInput(step: Step, { device, dtype, layer }: Stage, microbatch: number, inputs: Batch["inputs"]): Tensor {
  const data = step.model.packInputs(inputs);
  if (!layer.reads.input) {
    return fromArray(device, step.shapes[0], data, "activations", data instanceof Uint32Array ? "u32" : dtype);
  }
  const x = incoming(step, "F", 0, microbatch);
  writeArray(x, data);
  return x;
}

/** Memory for what a stage is given: an F's input or an I's output gradient, in a slot where W will read it. */
function incoming(step: Step, kind: "F" | "I", stage: number, microbatch: number): Tensor {
  const { device, dtype, layer } = step.stages[stage];
  const [name, kept, category] = kind === "F"
    ? ["x", layer.reads.input, "activations"] as const
    : ["dy", layer.reads.gradient, "derivatives"] as const;
  const shape = step.shapes[kind === "F" ? stage : stage + 1];
  if (!kept) return empty(device, shape, category, dtype);
  const { group, index } = savedOf(step, stage, microbatch);
  return slotIn(group, index, name, shape, category, dtype);
}

const neighbour = (kind: "F" | "I", stage: number) => kind === "F" ? stage + 1 : stage - 1;
const keyOf = (kind: "F" | "I", to: number, microbatch: number) => `${to}${kind}${microbatch}`;

/** Memory for what a stage passes on: its neighbour's own if that is on the same rank. */
function outgoing(step: Step, kind: "F" | "I", stage: number, microbatch: number): Tensor {
  const to = neighbour(kind, stage);
  const { device, dtype } = step.stages[stage];
  if (step.stages[to].device === device) return incoming(step, kind, to, microbatch);
  const shape = step.shapes[kind === "F" ? to : stage];
  return empty(device, shape, kind === "F" ? "activations" : "derivatives", dtype);
}

/** Passes a tensor on and gives up the reference to it; what it returns is to be called after the submission. */
function send(
  step: Step,
  kind: "F" | "I",
  stage: number,
  microbatch: number,
  tensor: Tensor,
): (() => void) | undefined {
  const to = neighbour(kind, stage);
  const target = step.stages[to].device;
  const key = keyOf(kind, to, microbatch);
  if (target === tensor.device) {
    step.handed.set(key, tensor);
    return undefined;
  }
  const post = step.channels.send(target, key, tensor, step.historyOf(key));
  release(tensor);
  return post;
}

/** A stage's input: here already if it comes from the same rank, on its way otherwise. */
function given(
  step: Step,
  kind: "F" | "I",
  stage: number,
  microbatch: number,
): { tensor: Tensor; receive?: { key: string; target: Tensor } } {
  const key = keyOf(kind, stage, microbatch);
  const handed = step.handed.get(key);
  if (handed) {
    step.handed.delete(key);
    return { tensor: handed };
  }
  const target = incoming(step, kind, stage, microbatch);
  return { tensor: target, receive: { key, target: retain(target) } };
}
