/**
 * What a tokenizer.json says, so that @huggingface/tokenizers does what Python's tokenizers do. Parts that it reads otherwise are
 * said in words that it reads alike; where there are none the tokenizer is refused: other tokens would be no error, only
 * another model.
 */
import { UserError } from "../errors.ts";
import { quoted } from "../text.ts";

type Part = Readonly<Record<string, unknown>>;

/** The punctuation of Python's tokenizers: Unicode's, and what else of ASCII is neither letter, digit nor blank. */
const punctuation = "[\\p{P}$+<=>^`|~]";

const split = (pattern: string, behavior: string, invert = false): Part => ({
  type: "Split",
  pattern: { Regex: pattern },
  behavior,
  invert,
});

/**
 * The same tokenizer, said so.
 *
 * @param file What is refused, in a message.
 * @throws {UserError} Names the part that would be read otherwise.
 */
export function saidAlike(file: string, description: Part): Part {
  const refused = (what: string) => new UserError(`${file} cannot be run as Python's tokenizers run it: ${what}`);
  const model = (description.model ?? {}) as Part;
  if (!["BPE", "WordPiece", "Unigram"].includes(model.type as string)) {
    throw refused(
      `its model is ${
        typeof model.type === "string" ? quoted(model.type) : "of no kind"
      }, not BPE, WordPiece or Unigram`,
    );
  }
  if (model.type === "BPE" && model.continuing_subword_prefix) {
    throw refused(`its BPE has a prefix inside of words, ${quoted(String(model.continuing_subword_prefix))}`);
  }
  if (model.dropout) throw refused(`its BPE drops merges by chance, ${model.dropout} of them`);
  if (model.type === "Unigram" && model.byte_fallback) throw refused("its Unigram falls back to bytes");
  const added = Array.isArray(description.added_tokens) ? description.added_tokens as Part[] : [];
  const single = added.find(({ single_word }) => single_word === true);
  if (single) throw refused(`its token ${quoted(String(single.content))} is one only as a word of its own`);
  return {
    ...description,
    added_tokens: added,
    ...description.pre_tokenizer ? { pre_tokenizer: words(description.pre_tokenizer as Part, refused) } : {},
  };
}

/** How a text is cut into words. */
function words(part: Part, refused: (what: string) => UserError): Part {
  const { type, behavior, invert } = part;
  if (type === "Sequence" && Array.isArray(part.pretokenizers)) {
    return { ...part, pretokenizers: part.pretokenizers.map((inner: Part) => words(inner, refused)) };
  }
  // Letters of any script make words, not those of ASCII alone.
  if (type === "Whitespace") return split("\\w+|[^\\w\\s]+", "Removed", true);
  if (type === "Metaspace" && part.split !== false) {
    const blank = typeof part.replacement === "string" ? part.replacement : "\u2581";
    const pieces = split(`${blank}[^${blank}]*|[^${blank}]+`, "Removed", true);
    return { type: "Sequence", pretokenizers: [part, pieces] };
  }
  if (type === "Punctuation" && behavior !== "Contiguous") {
    if (behavior !== undefined && behavior !== "Isolated" && behavior !== "Removed") {
      throw refused(`its Punctuation is ${behavior}`);
    }
    return split(punctuation, behavior ?? "Isolated");
  }
  if (type === "Split" && !(behavior === "Removed" || (behavior === "Isolated" && invert !== true))) {
    throw refused(`its Split is ${behavior}${invert === true ? ", inverted" : ""}`);
  }
  return part;
}
