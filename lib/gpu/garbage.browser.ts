/** In a browser garbage is collected when the browser likes, and native objects are its own business. */

/** Does nothing. */
export function collectGarbage(): void {}

/** Does nothing. */
export function forgetNative(_mappings: number): void {}
