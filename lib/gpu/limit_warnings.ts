/** Two lines of Dawn's that nobody can act on, kept out of standard error; everything else is passed on. */
import { Buffer } from "node:buffer";
import { cText, libc } from "./libc.ts";

/** Dawn caps two limits that no kernel here uses, and says so to the descriptor itself, past every callback and level. */
const warnings =
  /^Warning: maxDynamic(Uniform|Storage)BuffersPerPipelineLayout artificially reduced from \d+ to \d+ to fit dynamic offset allocation limit\.\n/gm;

const standardError = 2;
const SEEK_SET = 0;

/**
 * Runs `call`, which must not be asynchronous, and gives to standard error what was written there meanwhile, without those
 * lines; or to `hear`, where that is given.
 */
export function withoutLimitWarnings<T>(call: () => T, hear?: (text: string) => void): T {
  const { dup, dup2, close, memfd_create, lseek, read, write } = libc();
  if (!dup || !dup2 || !close || !memfd_create || !lseek || !read || !write) return call();
  const kept = dup(standardError);
  const caught = kept < 0 ? -1 : memfd_create(cText("stderr"), 0);
  if (caught < 0) {
    if (kept >= 0) close(kept);
    return call();
  }
  dup2(caught, standardError);
  try {
    return call();
  } finally {
    dup2(kept, standardError);
    lseek(caught, 0, SEEK_SET);
    const pieces: Uint8Array[] = [];
    for (;;) {
      const piece = new Uint8Array(4096);
      const length = read(caught, piece, piece.length);
      if (length <= 0) break;
      pieces.push(piece.subarray(0, length));
    }
    // Latin-1, so that bytes stay as they are.
    const rest = Buffer.from(Buffer.concat(pieces).toString("latin1").replace(warnings, ""), "latin1");
    if (hear) hear(rest.toString("utf8"));
    for (let at = 0; !hear && at < rest.length;) {
      const length = write(standardError, rest.subarray(at), rest.length - at);
      if (length <= 0) break; // nobody reads it
      at += length;
    }
    close(caught);
    close(kept);
  }
}
