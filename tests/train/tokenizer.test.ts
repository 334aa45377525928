import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { byteTokenizer, loadTokenizer } from "../../lib/train/tokenizer.ts";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const { texts, ...expected }: { texts: string[] } & Record<string, unknown> = JSON.parse(
  readFileSync(fixture("tokenizers.json"), "utf8"),
);
interface Expected {
  readonly vocabulary: number;
  readonly ids: number[][];
  readonly decoded: string[];
}

let folder: string;
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "tokenizers-")));
afterEach(() => rmSync(folder, { recursive: true }));
const error = (message: RegExp) => ({ name: "UserError", message });

for (const [name, right] of Object.entries(expected as Record<string, Expected>)) {
  test(`the ids and texts of ${name} are those of Python's tokenizers`, async () => {
    const tokenizer = await loadTokenizer(fixture(`tokenizers/${name}.json`));
    assert.equal(tokenizer.vocabulary, right.vocabulary);
    for (const [i, text] of texts.entries()) {
      assert.deepEqual([...Array.from(tokenizer.encode(text))], right.ids[i], text);
      assert.equal(tokenizer.decode(right.ids[i]), right.decoded[i]);
    }
    assert.equal(tokenizer.decode([]), "");
  });
}

test("bytes are tokens of their own", () => {
  const { encode, decode, vocabulary, end } = byteTokenizer();
  assert.deepEqual([...Array.from(encode("aü"))], [97, 0xc3, 0xbc]);
  assert.equal(decode(Uint32Array.of(97, 0xc3, 0xbc)), "aü");
  assert.deepEqual([vocabulary, end], [256, undefined]);
});

test("what ends a document is asked for, or the eos_token of the settings beside", async () => {
  const bpe = readFileSync(fixture("tokenizers/bpe.json"));
  writeFileSync(join(folder, "tokenizer.json"), bpe);
  assert.equal((await loadTokenizer(folder)).end, undefined);
  assert.equal((await loadTokenizer(folder, { end: "<|endoftext|>" })).end, 0);
  for (const token of ["<|endoftext|>", { content: "<|endoftext|>" }]) {
    writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ eos_token: token }));
    const { end, special } = await loadTokenizer(folder);
    assert.deepEqual([end, [...special!]], [0, [0]]);
  }
  await assert.rejects(
    loadTokenizer(folder, { end: "</s>" }),
    error(/^loadTokenizer: end: "<\/s>" is none of the tokens of .*tokenizer\.json$/),
  );
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ eos_token: "<eos>" }));
  await assert.rejects(
    loadTokenizer(folder),
    error(/^eos_token of .*tokenizer_config\.json: "<eos>" is none of the tokens of .*tokenizer\.json$/),
  );
});

test("a text that a tokenizer has no tokens for is refused, as Python's refuses it", async () => {
  const unigram = JSON.parse(readFileSync(fixture("tokenizers/unigram.json"), "utf8"));
  unigram.model.unk_id = null;
  unigram.added_tokens = [];
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(unigram));
  const tokenizer = await loadTokenizer(folder);
  assert.throws(
    () => tokenizer.encode("to @"),
    error(/tokenizer\.json has no token for a part of "to @", and none for unknown ones$/),
  );
});

test("a tokenizer that would be read otherwise than Python's does is refused", async () => {
  const bpe = JSON.parse(readFileSync(fixture("tokenizers/bpe.json"), "utf8"));
  const splitting = (behavior: string, invert: boolean) => ({
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Split", pattern: { Regex: "x" }, behavior, invert }],
    },
  });
  const cases: [changes: Record<string, unknown>, message: RegExp][] = [
    [{ model: { ...bpe.model, dropout: 0.1 } }, /: its BPE drops merges by chance, 0\.1 of them$/],
    [{ model: { ...bpe.model, continuing_subword_prefix: "##" } }, /: its BPE has a prefix inside of words, "##"$/],
    [{ model: { type: "Unigram", vocab: [["a", 0]], byte_fallback: true } }, /: its Unigram falls back to bytes$/],
    [
      { added_tokens: [{ ...bpe.added_tokens[0], single_word: true }] },
      /: its token "<\|endoftext\|>" is one only as a word of its own$/,
    ],
    [splitting("MergedWithPrevious", false), /: its Split is MergedWithPrevious$/],
    [splitting("Isolated", true), /: its Split is Isolated, inverted$/],
    [{ pre_tokenizer: { type: "Punctuation", behavior: "MergedWithNext" } }, /: its Punctuation is MergedWithNext$/],
  ];
  for (const [changes, message] of cases) {
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...bpe, ...changes }));
    await assert.rejects(loadTokenizer(folder), error(message));
  }
});

test("a file that is no tokenizer is refused in one line", async () => {
  const write = (text: string) => writeFileSync(join(folder, "tokenizer.json"), text);
  await assert.rejects(loadTokenizer(folder), error(/tokenizer\.json cannot be read: there is no such file$/));
  await assert.rejects(loadTokenizer(join(folder, "x.json")), error(/x\.json cannot be read: there is no such file$/));
  for (
    const [text, message] of [
      ["{", /tokenizer\.json is not JSON: .+$/],
      ["[]", /tokenizer\.json must hold an object$/],
      ["{}", /tokenizers run it: its model is of no kind, not BPE, WordPiece or Unigram$/],
      ['{"model": {"type": "WordLevel"}}', /: its model is "WordLevel", not BPE, WordPiece or Unigram$/],
      ['{"model": {"type": "BPE"}}', /tokenizer\.json is no tokenizer that can be run: .+$/],
    ] as const
  ) {
    write(text);
    await assert.rejects(loadTokenizer(folder), error(message));
  }
  await assert.rejects(
    loadTokenizer(folder, { eos: "x" } as never),
    error(/^loadTokenizer: there is no "eos"; there are end$/),
  );
});
