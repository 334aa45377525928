/**
 * The text form in which Megatron-LM takes a partition, `--pipeline-model-parallel-layout`: stages from the input on, apart by
 * `|`; in each `E` for the embedding, `t` for a transformer block, `m` for a block of multi-token prediction and `L` for the
 * loss with what stands before it; `t*3` for `ttt`, `(tt|)*2` for `tt|tt|`; commas are nothing.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import { quoted } from "../../text.ts";

/** More letters than this are a mistake. */
const mostLetters = 65_536;

/**
 * The letters of each stage: `["Et", "tt", "L"]` of `Et|t*2|L`.
 *
 * @throws {UserError} For what is no layout.
 */
export function readLayout(text: string): string[] {
  let at = 0;
  const refuse = (what: string): never => {
    throw new UserError(`Layout ${quoted(text)}: ${what}`);
  };
  /** What stands here, or until the parenthesis that was opened at `from` is closed. */
  const sequence = (from?: number): string => {
    let result = "";
    for (; at < text.length && text[at] !== ")"; at++) {
      if (text[at] === ",") continue;
      let item = text[at];
      const isBar = item === "|";
      if (item === "(") {
        const opened = at++;
        item = sequence(opened);
      } else if (!/[EtmL|]/.test(item)) {
        refuse(
          `${quoted(item)} at position ${
            at + 1
          } is none of E, t, m, L, |, a comma, and a letter or (...) with *N after it`,
        );
      }
      const [repeat, digits] = /^\*(\d*)/.exec(text.slice(at + 1)) ?? [""];
      if (repeat) {
        const times = Number(digits);
        if (!digits || times < 1) refuse(`* at position ${at + 2} needs a whole number of 1 or more after it`);
        if (isBar) refuse(`* at position ${at + 2} is for a letter or (...), and a | is neither`);
        if (times * item.length > mostLetters) refuse(`it has more than ${mostLetters} letters`);
        item = item.repeat(times);
        at += repeat.length;
      }
      result += item;
      if (result.length > mostLetters) refuse(`it has more than ${mostLetters} letters`);
    }
    if (from !== undefined && at === text.length) refuse(`( at position ${from + 1} is not closed`);
    if (from === undefined && at < text.length) refuse(`) at position ${at + 1} closes nothing`);
    return result;
  };
  return sequence().split("|");
}

/** Writes stages of so many blocks, the embedding in the first and the loss in the last: `Et*3|t*4|t*4|t*3,L`. */
export function writeLayout(blocks: readonly number[]): string {
  const parts = blocks.map((count) => count > 1 ? `t*${count}` : "t".repeat(count));
  parts[0] = `E${parts[0]}`;
  const last = parts.length - 1;
  parts[last] += parts[last] ? ",L" : "L";
  return parts.join("|");
}

/**
 * The blocks of each stage.
 *
 * @throws {UserError} For what is no layout, and one whose embedding does not come first, whose loss not last, or which has blocks of
 * multi-token prediction.
 */
export function blocksOfLayout(text: string): number[] {
  const stages = readLayout(text);
  const right = 'must have one E before all t and one L after them, as in "Et*3|t*4,L"';
  if (stages.some((letters) => letters.includes("m"))) {
    throw new UserError(`Layout ${quoted(text)} has m, a block of multi-token prediction, which no model here has`);
  }
  if (!/^Et*L$/.test(stages.join(""))) throw new UserError(`Layout ${quoted(text)} ${right}`);
  return stages.map((letters) => letters.split("t").length - 1);
}
