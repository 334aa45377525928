/** Which of many documents or images are held out of training: about every so many, the same ones each time. */
import { UserError } from "../errors.ts";
import { generator } from "../random.ts";
import { type Rule } from "../rules.ts";

/** What is trained on, or what is held out. */
export type Part = "train" | "held-out";

/** A share that can be held out. */
export const share: Rule = {
  right: "a number, 0 or more and at most 0.5",
  accepts: (value) => typeof value === "number" && value >= 0 && value <= 0.5,
};

/**
 * Says whether number n is held out: of each stretch of 1 / `share` numbers one is, somewhere in it, whatever the seeds of
 * shuffling are and however many numbers there are.
 */
export function heldOut(share: number): (n: number) => boolean {
  if (share === 0) return () => false;
  let stretch = -1, place = 0;
  return (n) => {
    // Measured in stretches n goes from n * share to (n + 1) * share.
    const from = n * share, end = (n + 1) * share;
    for (let each = Math.floor(from); each < end; each++) {
      if (each !== stretch) {
        stretch = each; // asked for in order, they are drawn once
        place = each + generator(`held out:${each}`).uniform();
      }
      if (place >= from && place < end) return true;
    }
    return false;
  };
}

/**
 * Which of `count` are in a part, by their numbers.
 *
 * @param what What they are, in a message: "documents".
 * @throws {UserError} When there are none.
 */
export function expectPart(what: string, count: number, inPart: number, part: Part, share: number): void {
  if (inPart > 0) return;
  if (part === "train") {
    throw new UserError(`Of ${count} ${what} none is left to train on: ${share} of them is held out`);
  }
  const hint = share === 0 ? "say with `heldOut` which share is" : "hold a larger share out";
  throw new UserError(`Of ${count} ${what} none is held out with a share of ${share}: ${hint}`);
}
