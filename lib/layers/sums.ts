/** Where what is summed up for W is made: the sums over one micro-batch that are a weight gradient, and not a product of matrices. */

/**
 * Who makes sums that only W reads, as those of the gain of a norm: "i", I, which reads the same tensors anyway and then gives
 * them back; or "w", W, which then keeps them waiting. W's way makes I shorter, which others wait for, and holds more; where a sum
 * falls out of one of I's loops, as in a scan, W also works more than I would have.
 */
export type Sums = "i" | "w";

/** Who can make them. */
export const sumsMakers: readonly Sums[] = ["i", "w"];

/** Whether W reads a tensor: always, never, or where it makes the sums. */
export type Reading = boolean | "sums" | undefined;

/** Whether a W reads it that makes the sums, or one that does not. */
export function isRead(reading: Reading, sums: Sums): boolean {
  return reading === true || (reading === "sums" && sums === "w");
}

/** What is said of a tensor that two layers read. */
export function either(one: Reading, other: Reading): Reading {
  return one === true || other === true || one || other;
}
