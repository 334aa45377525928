/** A browser has one instance, `navigator.gpu`, which stays. */

/** Does nothing. */
export function parkInstance(_instance: GPU): void {}
