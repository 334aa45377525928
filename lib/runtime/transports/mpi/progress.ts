/**
 * Messages under way. MPI moves large ones only inside its calls, so as long as one is waited for it is called again and again, in
 * the turns in which the process polls for its GPU: with few parks while nobody knows how long a wait takes.
 */
import { lookAfter, polled } from "../../../gpu/poll.ts";
import { type Promised, promised } from "../../promised.ts";
import type { Memory, Mpi, RequestHandle } from "./library.ts";

/** A message that is waited for. */
export interface Receipt {
  /** Settles when it is there. */
  readonly arrived: Promise<void>;
  /** Takes the wait back; false where the message is there by now. */
  cancel(): boolean;
}

/** What sends and receives. */
export interface Progress {
  /** Sends bytes off, which must stay as they are until that is done. */
  send(memory: Memory, to: number, tag: number): Promise<void>;
  /** Waits for exactly so many bytes as `memory` has. `routine` and `name` as for `polled`. */
  receive(memory: Memory, from: number, tag: number, routine?: object, name?: string): Receipt;
  /** Looks for records as long as somebody waits for one: until what it returns is called. */
  listen(): () => void;
  /** One turn, for a caller that does not go on with anything else. */
  turn(): void;
  /** Whether anything that was sent is still on its way. */
  isSending(): boolean;
}

/** A request, and what it needs. */
interface Pending {
  readonly handle: RequestHandle;
  /** Referenced, and so kept, until the request has ended. */
  readonly memory: Memory;
  readonly isReceive: boolean;
  readonly done: Promised<void>;
}

/** @param onTurn Is called in each turn, and receives what is on no request's list. */
export function createProgress(mpi: Mpi, onTurn: () => void): Progress {
  let pending: Pending[] = [];
  let listeners = 0;
  const self = { turn, isBusy: () => pending.length > 0 || listeners > 0 };

  function turn() {
    onTurn();
    if (pending.length === 0) return;
    let ended: ReturnType<Mpi["testSome"]>;
    try {
      ended = mpi.testSome(pending.map(({ handle }) => handle));
    } catch (error) {
      // Whose request it was is not said: none of them can be relied on any more.
      const all = pending;
      pending = [];
      all.forEach(({ done }) => done.reject(error));
      return;
    }
    if (ended.length === 0) return;
    const gone = new Set(ended.map(({ index }) => index)), before = pending;
    pending = before.filter((_, index) => !gone.has(index));
    for (const { index, bytes } of ended) {
      const { isReceive, memory, done } = before[index];
      if (!isReceive || bytes === memory.length) done.resolve();
      else done.reject(new Error(`a message of ${memory.length} bytes was expected, and one of ${bytes} has come`));
    }
  }

  function add(handle: RequestHandle, memory: Memory, isReceive: boolean): Pending {
    const entry = { handle, memory, isReceive, done: promised<void>() };
    pending.push(entry);
    lookAfter(self);
    return entry;
  }

  return {
    turn,
    isSending: () => pending.some(({ isReceive }) => !isReceive),
    send: (memory, to, tag) => quiet(polled(add(mpi.send(memory, to, tag), memory, false).done.promise)),
    receive(memory, from, tag, routine, name) {
      const entry = add(mpi.receive(memory, from, tag), memory, true);
      return {
        arrived: quiet(polled(entry.done.promise, routine, name)),
        cancel() {
          if (!pending.includes(entry)) return false;
          pending = pending.filter((each) => each !== entry);
          const inTime = mpi.cancel(entry.handle);
          if (inTime) entry.done.reject(new Error("the wait for a message was taken back"));
          else entry.done.resolve();
          return inTime;
        },
      };
    },
    listen() {
      listeners++;
      lookAfter(self);
      return () => void listeners--;
    },
  };
}

/** The promise, whose rejection may find nobody who waits: a rank that failed waits for none of what it has begun. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
