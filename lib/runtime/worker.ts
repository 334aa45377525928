/** A process that does what the first of its job asks. */
import { reasonOf, UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { bert } from "../models/bert.ts";
import { llama } from "../models/llama.ts";
import { mamba } from "../models/mamba.ts";
import type { Model } from "../models/model.ts";
import { resnet } from "../models/resnet.ts";
import { muon } from "../train/muon.ts";
import { adamw, lion, type OptimizerSpec, sgd } from "../train/optimizers.ts";
import { openAs, type WorldOptions } from "./open_world.ts";
import type { Call, Description, Order, Problem, Setting } from "./orders.ts";
import { createPipeline, type Pipeline, type PipelineOptions } from "./pipeline.ts";
import { readClocks } from "./read_clocks.ts";

/**
 * Opens this process's devices, and makes and joins what the first process asks for, until that closes its own.
 *
 * @throws {UserError} Where the first process has asked for no workers, or ends without having closed its devices.
 */
export async function work(options: Omit<WorldOptions, "workers">, say: (line: string) => void): Promise<void> {
  const { set, job: { mail } } = await openAs("worker", options);
  const pipelines = new Map<number, Pipeline>(), running = new Map<number, Promise<void>>();
  try {
    say(`Process ${set.process} of ${set.processes}, with ranks ${set.world.peers.join(", ")}, waits for process 0.`);
    for (let number = 0;; number++) {
      const order = await mail.hear(0, `order ${number}`).catch((error) => {
        throw new UserError(`${reasonOf(error)}, and had not closed its devices`);
      }) as Order;
      const open = order.kind === "call" ? order.open : [];
      await Promise.all([...running].filter(([call]) => !open.includes(call)).map(([, ended]) => ended));
      if (order.kind === "end") return;
      if (order.kind === "clocks") {
        await readClocks(set).catch(() => {}); // what goes wrong goes wrong in all processes: the first one says
        continue;
      }
      if (order.kind === "call") {
        // How it ends, well or not, it ends in all processes: the first one says.
        const call = join(pipelines.get(order.pipeline)!, order.name, order.given);
        const ended = call.then(() => {}, () => {}).finally(() => void running.delete(number));
        running.set(number, ended);
        continue;
      }
      let problem: Problem | undefined;
      try {
        if (order.kind === "create") pipelines.set(order.pipeline, createPipeline(set, ...remade(order.how)));
        else {
          const pipeline = pipelines.get(order.pipeline);
          if (pipeline) follow(pipeline, order.name, order.given);
          if (order.name === "close") pipelines.delete(order.pipeline);
        }
      } catch (error) {
        problem = { reason: reasonOf(error), isUsers: error instanceof UserError };
      }
      mail.tell(0, `done ${number}`, problem);
    }
  } finally {
    set.close();
  }
}

// deno-lint-ignore no-explicit-any
type Makers<T> = Readonly<Record<string, (...given: any[]) => T>>;

const models: Makers<Model> = { bert, llama, mamba, resnet };
const optimizers: Makers<OptimizerSpec> = { adamw, lion, muon, sgd };

/** What was described. */
function remade({ model, optimizer, parts, options }: Description): [Model, PipelineOptions] {
  const again = models[model.maker](...model.given), { layers } = again;
  let first = 0;
  const cut = parts?.map((count): readonly Layer[] => layers.slice(first, first += count));
  return [again, {
    ...options,
    optimizer: optimizers[optimizer.maker](...optimizer.given),
    ...cut ? { parts: cut } : {},
  }];
}

/** Does an order to a pipeline that a process makes by itself. */
function follow(pipeline: Pipeline, name: Setting, given: readonly unknown[]): void {
  (pipeline[name] as (...given: readonly unknown[]) => void)(...given);
}

/** Joins a call. */
function join(pipeline: Pipeline, name: Call, given: readonly unknown[]): Promise<unknown> {
  // A signal is one that is never given here: it counts when any process gets it.
  const all = name === "generate" ? [given[0], { ...given[1] as object, signal: new AbortController().signal }] : given;
  return (pipeline[name] as (...given: readonly unknown[]) => Promise<unknown>)(...all);
}
