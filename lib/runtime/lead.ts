/** The first process of a job whose others are workers: it tells them what it does, so that they do it with it. */
import { deserialize, serialize } from "node:v8";
import { firstLine } from "../text.ts";
import { UserError } from "../errors.ts";
import { describe, type Lead, type Order, type Orders, type Problem } from "./orders.ts";
import { type Job, together } from "./transports/mpi/job.ts";

/** A record is one message of MPI, whose length is an i32. */
const mostBytes = 2 ** 31 - 2 ** 16;

/** Makes this process the first of its job. */
export function createLead(job: Job): Lead {
  const { mail, size, members } = job;
  const workers = Array.from({ length: size - 1 }, (_, at) => at + 1);
  const open = new Set<number>(), unanswered = new Set<Promise<void>>();
  let orders = 0, pipelines = 0, hasEnded = false;
  let problem: Error | undefined;

  function tell(order: Order): number {
    const number = orders++;
    for (const to of workers) mail.tell(to, `order ${number}`, order);
    return number;
  }

  /** Tells what each worker does by itself, and waits for their answers meanwhile. */
  function tellAlone(order: Order) {
    const number = tell(order);
    for (const from of workers) {
      const answer: Promise<void> = mail.hear(from, `done ${number}`).then((said) => {
        if (said === undefined) return;
        const { reason, isUsers } = said as Problem, text = `Process ${from} on ${members[from].host}: ${reason}`;
        problem ??= isUsers ? new UserError(text) : new Error(text);
      }, (error) => void (problem ??= error)).finally(() => void unanswered.delete(answer));
      unanswered.add(answer);
    }
  }

  function asTold(given: unknown): Uint8Array {
    let bytes: Uint8Array;
    try {
      bytes = serialize(given);
    } catch (error) {
      throw new UserError(`Workers cannot be told this: ${firstLine(error)}`);
    }
    if (bytes.length <= mostBytes) return bytes;
    throw new UserError(`Workers can be told up to ${mostBytes} bytes at once, and these are ${bytes.length}`);
  }

  return {
    ordersOf(model, options) {
      const how = describe(model, options), pipeline = pipelines++;
      asTold(how);
      const orders: Orders = {
        made: () => tellAlone({ kind: "create", pipeline, how }),
        call(name, given, run) {
          const bytes = asTold(given);
          const begin = async (own: typeof given) => {
            if (problem) throw problem;
            const number = tell({ kind: "call", pipeline, name, given: own, open: [...open] });
            open.add(number);
            try {
              return await run(...own);
            } finally {
              open.delete(number);
            }
          };
          return unanswered.size === 0
            ? begin(given)
            : Promise.all(unanswered).then(() => begin(deserialize(bytes) as typeof given));
        },
        async generate(prompt, options, run) {
          const { signal, onToken, ...told } = options ?? {};
          if (signal !== undefined && !(signal instanceof AbortSignal)) {
            throw new UserError("generate: `signal` must be an AbortSignal");
          }
          if (onToken !== undefined && typeof onToken !== "function") {
            throw new UserError("generate: `onToken` must be a function");
          }
          const failures: unknown[] = [], ender = new AbortController();
          const own = {
            ...told,
            signal: signal ? AbortSignal.any([signal, ender.signal]) : ender.signal,
            ...onToken === undefined ? {} : {
              onToken(token: unknown) {
                if (failures.length > 0) return;
                try {
                  onToken(token);
                } catch (error) {
                  failures.push(error);
                  ender.abort(); // ends it in all processes
                }
              },
            },
          };

          const result = await orders.call(
            "generate",
            [prompt, told] as const,
            (prompt, _) => run(prompt, own as typeof options),
          );
          if (failures.length > 0) throw failures[0];
          return result;
        },
        set: (name, ...given) => hasEnded || tellAlone({ kind: "set", pipeline, name, given }),
        expectTold: asTold,
      };
      return orders;
    },
    clocks() {
      if (problem) throw problem;
      tell({ kind: "clocks" });
      return (own) => together(job, own);
    },
    end() {
      if (!hasEnded) tell({ kind: "end" });
      hasEnded = true;
    },
  };
}
