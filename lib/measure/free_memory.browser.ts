/** A browser does not say what memory the machine has left. */

/** As if there were no end of it. */
export function freeMemory(): number {
  return Infinity;
}
