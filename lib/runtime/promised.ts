/** A promise to be settled from elsewhere. */
export interface Promised<T> {
  /** Settles when one of the functions below is called; a rejection that nobody waits for goes unreported. */
  readonly promise: Promise<T>;
  /** Fulfils the promise. */
  resolve(value: T): void;
  /** Rejects the promise. */
  reject(error: unknown): void;
}

/** A new one. */
export function promised<T>(): Promised<T> {
  let resolve!: Promised<T>["resolve"], reject!: Promised<T>["reject"];
  const promise = new Promise<T>((yes, no) => [resolve, reject] = [yes, no]);
  promise.catch(() => {});
  return { promise, resolve, reject };
}
