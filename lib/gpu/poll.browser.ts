/** A browser polls its GPU by itself. */

/** The promise as it is. */
export function polled<T>(promise: Promise<T>, _routine?: object, _name?: string): Promise<T> {
  return promise;
}

/** Does nothing: the GPU is in another process. */
export function yieldCore(): void {}
