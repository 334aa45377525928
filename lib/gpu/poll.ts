/**
 * How this process waits for its GPUs.
 *
 * While any promise of Dawn's Node binding is pending, Dawn polls by calling the *global* `setImmediate` with a native
 * function, over and over, which costs a whole core. Here that loop is slowed down: before each of Dawn's polls
 * the thread is parked for a moment. Dawn looks the global up at every poll, so replacing it is enough.
 *
 * A park makes the end of a wait late by up to its length, and a poll costs processor time, which a software driver's
 * threads would rather have, so parks grow with the time already waited: a wait of t ends at most `SLACK * t` late. On two
 * cores with two busy devices, parks of at most 0.5 ms made whole steps 1 to 2 % slower than parks of at most 2 ms.
 */

/** The first stretch of a wait is polled without parking: short kernels and copies end here. */
const SPIN_MS = 0.05;
/** Length of a park as a share of the time waited so far. */
const SLACK = 1 / 16;
const SHORTEST_PARK_MS = 0.1;
const LONGEST_PARK_MS = 2;

const cell = new Int32Array(new SharedArrayBuffer(4));
let waitingSince = 0;
let installed = false;

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

/** Tells the poller that something has just been handed to a GPU or come back from it, so that it polls closely again. */
export function noteProgress(): void {
  waitingSince = performance.now();
}

function poll(callback: () => void) {
  const waited = performance.now() - waitingSince;
  if (waited > SPIN_MS) {
    Atomics.wait(cell, 0, 0, Math.min(LONGEST_PARK_MS, Math.max(SHORTEST_PARK_MS, waited * SLACK)));
  }
  callback();
}

function isNative(callback: unknown) {
  return typeof callback === "function" && /\[native code\]\s*\}$/.test(Function.prototype.toString.call(callback));
}
