/**
 * The usual ways to place stages on ranks, as lists from stage to rank.
 *
 * @module
 */

/** One stage a rank, in order: `0 1 2 3`. */
export function linearPlacement(devices: number): number[] {
  return Array.from({ length: devices }, (_, stage) => stage);
}

/** `chunks` stages a rank, dealt out round after round: `0 1 2 3 0 1 2 3` (Megatron-LM, arXiv 2104.04473, section 2.2). */
export function interleavedPlacement(devices: number, chunks: number): number[] {
  return Array.from({ length: devices * chunks }, (_, stage) => stage % devices);
}

/**
 * Two stages a rank, down and up again: `0 1 2 3 3 2 1 0` (ZB-V, arXiv 2401.10241, section 6). The first rank holds the
 * loss, so that a backward pass starts where its forward ended.
 */
export function vPlacement(devices: number): number[] {
  return Array.from({ length: 2 * devices }, (_, stage) => stage < devices ? stage : 2 * devices - 1 - stage);
}

/**
 * `2 * waves` stages a rank, down and up again and again: `0 1 2 2 1 0 0 1 2 2 1 0` (Hanayo, arXiv 2308.15762). With one wave it is
 * a V.
 */
export function zigzagPlacement(devices: number, waves: number): number[] {
  return Array.from({ length: waves }, () => vPlacement(devices)).flat();
}
