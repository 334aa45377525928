/** What pages say that programs print: when it counts as the same. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { difference } from "../.ci/printed.ts";

test("what a page shows and a program prints are the same but for blanks at line ends and the rounding of decimals", () => {
  assert.equal(difference("loss 0.298\n0 F0 \n", "loss 0.298\n0 F0\n\n"), undefined);
  assert.equal(difference("loss 0.298", "loss 0.299"), undefined, "the last digit");
  assert.equal(difference("loss 0.072", "loss 0.073"), undefined, "the last digit of a small one, more than 2 %");
  assert.equal(difference("gain 137.2", "gain 138.9"), undefined, "2 %");
});

test("another word, another whole number, a decimal that is far off, and lines too many or too few are told", () => {
  assert.match(difference("2 ranks", "3 ranks")!, /^line 1 is "3 ranks" and not "2 ranks"$/);
  assert.match(difference("ok\nright", "ok\nwrong")!, /^line 2 is "wrong" and not "right"$/);
  assert.match(difference("loss 0.298", "loss 0.310")!, /^line 1/);
  assert.match(difference("loss 0.298", "loss NaN")!, /^line 1/);
  assert.match(difference("loss 0.298", "loss -0.298")!, /^line 1/);
  assert.match(difference("a\nb", "a")!, /^line 2 is missing: "b"$/);
  assert.match(difference("a", "a\nb")!, /^line 2 is not expected: "b"$/);
  assert.match(difference("a", "")!, /^line 1 is "" and not "a"$/);
});
