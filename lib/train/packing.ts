/** Documents as sequences of one length: how tokens fill them, and what each is to predict. */
import { UserError } from "../errors.ts";
import type { DocumentStream, Place } from "./document_stream.ts";
import { ignored } from "../ops/loss.ts";

/** How far a source of sequences has come: the next token to be taken, and the sequences so far. */
export interface Cursor extends Place {
  /** Tokens of the document that have been taken. */
  readonly token: number;
  /** Sequences before. */
  readonly sequences: number;
}

/** A sequence: each token, the one that follows it in its document, and where its document starts. */
export interface Sequence {
  /** Token ids, `length` of them; behind `used` a filler. */
  readonly tokens: Uint32Array;
  /** The token that follows each in its document, {@link ignored} where none does. */
  readonly following: Uint32Array;
  /** Where in the sequence each token's document starts: 0 for one that goes on from the sequence before. */
  readonly starts: Uint32Array;
  /** Tokens that are not filler. */
  readonly used: number;
}

/** What sequences are made by. */
export interface PackingOptions {
  readonly length: number;
  /** "joined": documents one behind the other; "apart": each sequence has tokens of one document alone. */
  readonly documents: "joined" | "apart";
  /** Stands where a sequence has no token. */
  readonly filler: number;
  /** Whether a document's last token, which has none to predict, is an input, too. */
  readonly withLast: boolean;
  /** The tokens of a document. */
  tokens(text: string): ArrayLike<number>;
}

/** Makes sequences of documents, from any place on. */
export function packing(
  documents: DocumentStream,
  options: PackingOptions,
): (cursor: Cursor) => Promise<{ sequence: Sequence; next: Cursor }> {
  const { length, filler, withLast } = options;
  let known: { key: string; tokens: ArrayLike<number>; next: Place } | undefined;

  async function documentAt(place: Place) {
    const key = `${place.epoch}:${place.window}:${place.document}`;
    if (known?.key === key) return known;
    const found = await documents.at(place);
    if (!found) throw new UserError("The position to go on from is behind the last document");
    const tokens = found.text === undefined ? [] : options.tokens(found.text);
    return known = { key, tokens, next: found.next };
  }

  return async (cursor) => {
    const tokens = new Uint32Array(length).fill(filler);
    const following = new Uint32Array(length).fill(ignored);
    const starts = new Uint32Array(length);
    let { epoch, window, document, token } = cursor;
    let used = 0;
    while (used < length) {
      const { tokens: all, next } = await documentAt({ epoch, window, document });
      if (token > all.length) throw new UserError("The position to go on from is behind the end of its document");
      const inputs = all.length - Number(!withLast);
      const taken = Math.min(length - used, Math.max(0, inputs - token));
      for (let i = 0; i < taken; i++) {
        tokens[used + i] = all[token + i];
        if (token + i + 1 < all.length) following[used + i] = all[token + i + 1];
      }
      starts.fill(used, used, used + taken);
      used += taken;
      token += taken;
      if (token >= inputs) {
        ({ epoch, window, document } = next);
        token = 0;
      }
      if (used === 0 && epoch > cursor.epoch + 1) {
        throw new UserError("No document has enough tokens: there is nothing to predict");
      }
      if (options.documents === "apart" && used > 0) break;
    }
    const next = { epoch, window, document, token, sequences: cursor.sequences + 1 };
    return { sequence: { tokens, following, starts, used }, next };
  };
}
