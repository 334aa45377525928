/** Tokenizers: what makes token ids of a text. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { byteVocabulary } from "../bytes.ts";
import { UserError } from "../errors.ts";
import { fileProblem } from "../files.ts";
import { optional } from "../optional.ts";
import { hash } from "../random.ts";
import { expectFields, optional as orNone, string } from "../rules.ts";
import { firstLine, quoted, shown } from "../text.ts";
import { saidAlike } from "./tokenizer_description.ts";

/** Makes token ids of a text, and a text of token ids. One of your own has the same fields. */
export interface Tokenizer {
  /** Tells tokenizers apart: sources do not go on from a position of another. */
  readonly name: string;
  /** Number of tokens: ids are below. */
  readonly vocabulary: number;
  /** The token behind the last of a document; none by default. */
  readonly end?: number;
  /** Tokens that stand for no text, which masked language models are not asked for; none by default. */
  readonly special?: ReadonlySet<number>;
  /** The ids of a document, those included that mark where it begins, not `end`. */
  encode(text: string): ArrayLike<number>;
  /** The text of ids. */
  decode(ids: ArrayLike<number>): string;
}

/** The bytes of UTF-8 as tokens: 256 of them, and none that ends a document. */
export function byteTokenizer(): Tokenizer {
  const encoder = new TextEncoder(), decoder = new TextDecoder();
  return {
    name: "bytes",
    vocabulary: byteVocabulary,
    encode: (text) => encoder.encode(text),
    decode: (ids) => decoder.decode(Uint8Array.from(ids)),
  };
}

/**
 * The tokenizer of a `tokenizer.json`, as Hugging Face's libraries write it: BPE, WordPiece or Unigram, with what comes before
 * and after. Documents end with `end`, by default the `eos_token` of a `tokenizer_config.json` beside it, where that is.
 * `path` is the file, or a folder with it.
 *
 * ```ts
 * import { loadTokenizer } from "twobp/train";
 *
 * const tokenizer = await loadTokenizer("Llama-3.2-1B");
 * const ids = tokenizer.encode("to be or not to be");
 * console.log(tokenizer.vocabulary, ids, tokenizer.decode(ids));
 * ```
 *
 * @throws {UserError} When a file cannot be read or is no tokenizer, or `end` is none of its tokens; where the package
 * @huggingface/tokenizers cannot be loaded; and, when it is used, on a text that it has no tokens for.
 */
export async function loadTokenizer(path: string, options: { readonly end?: string } = {}): Promise<Tokenizer> {
  expectFields("loadTokenizer", options, { end: orNone(string) });
  const { Tokenizer } = await optional(
    "@huggingface/tokenizers",
    "Tokenizers are run by",
    () => import("@huggingface/tokenizers"),
  );
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  const file = isFolder ? join(path, "tokenizer.json") : path;
  const description = await readText(file);
  const settingsFile = join(file, "..", "tokenizer_config.json");
  const settings = await stat(settingsFile).catch(() => undefined)
    ? parsed(settingsFile, await readText(settingsFile))
    : {};
  let tokenizer: InstanceType<typeof Tokenizer>;
  try {
    tokenizer = new Tokenizer(saidAlike(shown(file), parsed(file, description)), settings);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${shown(file)} is no tokenizer that can be run: ${firstLine(error)}`);
  }
  const ids = [...tokenizer.get_vocab(true).values()];
  if (ids.length === 0) throw new UserError(`${shown(file)} has no tokens`);
  const vocabulary = ids.reduce((most, id) => Math.max(most, id), 0) + 1;
  const end = options.end ?? textOfToken(settings.eos_token);
  const endId = end === undefined ? undefined : tokenizer.token_to_id(end);
  if (end !== undefined && endId === undefined) {
    const said = options.end === undefined ? `eos_token of ${shown(settingsFile)}` : "loadTokenizer: end";
    throw new UserError(`${said}: ${quoted(end)} is none of the tokens of ${shown(file)}`);
  }
  // As Python's tokenizers decode: blanks before punctuation go only where the settings say so.
  const tidy = settings.clean_up_tokenization_spaces === true;
  const asItStands = { skip_special_tokens: false, clean_up_tokenization_spaces: tidy };
  const special = [...tokenizer.get_added_tokens_decoder()].filter(([, token]) => token.special).map(([id]) => id);
  return {
    name: `tokenizer ${hash(description).toString(16)}, end ${endId ?? "none"}`,
    vocabulary,
    ...endId === undefined ? {} : { end: endId },
    special: new Set(special),
    encode(text) {
      const { ids } = tokenizer.encode(text);
      const at = ids.findIndex((id) => !Number.isInteger(id) || id < 0);
      if (at >= 0) {
        throw new UserError(`${shown(file)} has no token for a part of ${quoted(text)}, and none for unknown ones`);
      }
      return ids;
    },
    decode: (ids) => ids.length === 0 ? "" : tokenizer.decode(Array.from(ids), asItStands),
  };
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new UserError(`${shown(file)} cannot be read: ${fileProblem(error)}`);
  }
}

function parsed(file: string, text: string): Record<string, unknown> {
  try {
    const value = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch (error) {
    throw new UserError(`${shown(file)} is not JSON: ${firstLine(error)}`);
  }
  throw new UserError(`${shown(file)} must hold an object`);
}

/** Settings have a token as its text, or as an object with that. */
function textOfToken(token: unknown): string | undefined {
  const text = typeof token === "object" && token !== null ? (token as { content?: unknown }).content : token;
  return typeof text === "string" ? text : undefined;
}
