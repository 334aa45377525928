/**
 * How this process waits for its GPUs.
 *
 * While any promise of Dawn's Node binding is pending, Dawn polls by calling the *global* `setImmediate` with a native
 * function, over and over, which costs a whole core. Here that loop is slowed down: before each of Dawn's polls
 * the thread is parked for a moment. Dawn looks the global up at every poll, so replacing it is enough.
 *
 * A park makes the end of a wait late by up to its length, and a poll costs processor time, which a software driver's
 * threads would rather have. A step repeats itself, so most waits have been made before: the thread is parked until shortly
 * before the wait ended the last times, and polls closely from there on. For a wait that nobody knows, parks grow with the time
 * already waited: one of t ends at most `SLACK * t` late. On two cores with two busy devices, such parks of at most 0.5 ms
 * made whole steps 1 to 2 % slower than parks of at most 2 ms.
 *
 * Messages between processes wait in the same way, and are looked after in the same turns: see `lookAfter`.
 */

/** The first stretch of a wait is polled without parking: short kernels and copies end here. */
const SPIN_MS = 0.05;
/** Length of a park as a share of the time waited so far, or waited longer than expected. */
const SLACK = 1 / 16;
const SHORTEST_PARK_MS = 0.1;
const LONGEST_PARK_MS = 2;
/** The longest park of a wait that is known: what ends before its time is late by up to this. */
const LONGEST_KNOWN_PARK_MS = 5;
/** Close polling begins so much before a wait ended the last times, as a share of its length. */
const MARGIN = 1 / 20;
/** The last times that a wait is judged by: the shortest of them, since an end found late delays what waits for it. */
const REMEMBERED = 5;

const cell = new Int32Array(new SharedArrayBuffer(4));
let installed = false;
/** As it was before {@link installPolling}, and passed every callback through. */
const nextTurn = globalThis.setImmediate;

/** What else has to be looked after while this thread waits. */
interface Other {
  /** Looks after it, without waiting. */
  turn(): void;
  /** Whether there is anything to look after now. */
  isBusy(): boolean;
}

let other: Other | undefined;
/** Whether its own turns go on. */
let turning = false;
/** Whether Dawn has polled since the last of them: then the thread has been parked, and the other has had its turn. */
let polledByDawn = false;

/**
 * Has something that goes on only when it is called, as messages of MPI do, looked after at each of Dawn's polls, and where Dawn
 * waits for nothing as often. To be called whenever there is something new to look after: until there is nothing any more, turns go on.
 */
export function lookAfter(what: Other): void {
  other = what;
  if (turning) return;
  turning = true;
  nextTurn(takeTurn);
}

function takeTurn() {
  if (polledByDawn) polledByDawn = false;
  else {
    park();
    other!.turn();
  }
  turning = other!.isBusy();
  if (turning) nextTurn(takeTurn);
}

/** Replaces the global `setImmediate` once. Callbacks that are not Dawn's pass through untouched. */
export function installPolling(): void {
  if (installed) return;
  installed = true;
  const original = globalThis.setImmediate;
  const patched = (callback: (...args: unknown[]) => void, ...args: unknown[]) =>
    original(isNative(callback) ? () => poll(callback) : callback, ...args);
  // Node's own promisified form hangs on the function: keep it.
  globalThis.setImmediate = Object.assign(patched, original) as unknown as typeof setImmediate;
}

/** A wait under way: since when, and how long it took the last times, in milliseconds. */
interface Wait {
  readonly since: number;
  readonly history: number[];
}

const waits = new Set<Wait>();
/** Histories of waits by the routine that they are part of, and by their name there. */
const histories = new WeakMap<object, Map<string, number[]>>();

function historyOf(routine: object, name: string): number[] {
  let named = histories.get(routine);
  if (!named) histories.set(routine, named = new Map());
  let history = named.get(name);
  if (!history) named.set(name, history = []);
  return history;
}

/**
 * Waits for a promise of Dawn's, or for what {@link lookAfter} brings about. A wait with a name is remembered: the next one of this name in this routine (the program of a
 * schedule, whose steps repeat themselves) is polled closely only when it is due. `routine` need not live on for that.
 */
export async function polled<T>(promise: Promise<T>, routine?: object, name?: string): Promise<T> {
  const history = routine && name !== undefined ? historyOf(routine, name) : [];
  const wait = { since: performance.now(), history };
  waits.add(wait);
  try {
    const result = await promise;
    if (history.push(performance.now() - wait.since) > REMEMBERED) history.shift();
    return result;
  } finally {
    waits.delete(wait);
  }
}

/**
 * Stands aside for the thread of a software driver that a submission has woken. In a virtual machine Linux may start it on
 * the waker's own core, behind a recording that goes on for a millisecond, while another core is free.
 */
export function yieldCore(): void {
  Atomics.wait(cell, 0, 0, 0.01);
}

function poll(callback: () => void) {
  park();
  if (other?.isBusy()) {
    other.turn();
    polledByDawn = true;
  }
  callback();
}

/** Holds the thread up for as long as the waits under way allow. */
function park() {
  const now = performance.now();
  let ms = waits.size > 0 ? LONGEST_KNOWN_PARK_MS : SHORTEST_PARK_MS; // Dawn has promises of its own too
  for (const { since, history } of waits) ms = Math.min(ms, parkFor(now - since, history));
  if (ms > 0) Atomics.wait(cell, 0, 0, ms);
}

function parkFor(waited: number, history: readonly number[]): number {
  if (waited < SPIN_MS) return 0;
  const expected = history.length > 0 ? Math.min(...history) : 0;
  const early = expected * (1 - MARGIN) - waited;
  if (early > SHORTEST_PARK_MS) return early;
  return Math.min(LONGEST_PARK_MS, Math.max(SHORTEST_PARK_MS, (waited - expected) * SLACK));
}

function isNative(callback: unknown) {
  return typeof callback === "function" && /\[native code\]\s*\}$/.test(Function.prototype.toString.call(callback));
}
