import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createModel } from "../../lib/models/registry.ts";
import { llama } from "../../lib/models/llama.ts";
import { checkBatch } from "../../lib/train/check_batch.ts";
import { type Corpus, type CorpusBatches, openCorpus } from "../../lib/train/corpus.ts";
import { type Batch, ignored } from "../../lib/train/data.ts";
import { byteTokenizer, loadTokenizer, type Tokenizer } from "../../lib/train/tokenizer.ts";

let folder: string;
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "corpus-")));
afterEach(() => rmSync(folder, { recursive: true }));

const length = 16;
const sizes = { width: 8, blocks: 1, heads: 1, hidden: 8, length };
const model = llama("small", { ...sizes, vocabulary: 257 });
/** Bytes, and a token that ends a document. */
const ending: Tokenizer = { ...byteTokenizer(), name: "bytes and an end", vocabulary: 257, end: 256 };
const end = 256;

function write(name: string, text: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text);
  return path;
}

/** Documents of 3 to 40 characters, each with its number. */
const documents = Array.from({ length: 70 }, (_, i) => `<${i}>` + "abcdefghijklmnopqrstuvwxyz".slice(0, i * 11 % 25));
const lines = (texts: readonly string[], field = "text") =>
  texts.map((text) => JSON.stringify({ [field]: text }) + "\n");

/** The tokens of an epoch in the order that they come in, cut at the ends of documents. */
async function epoch(corpus: Corpus, options: Partial<CorpusBatches> = {}, part: "train" | "held" = "train") {
  const source = corpus[part]({ model, seed: 1, tokenizer: ending, ...options });
  const tokens: number[] = [];
  while (source.position().epoch === 0) {
    const { inputs, targets } = await source.next(1);
    inputs.forEach((token, i) => {
      tokens.push(token);
      const last = token === end;
      if (last) assert.equal(targets[i], ignored, "nothing is to predict what is in another document");
      else assert.notEqual(targets[i], ignored);
    });
  }
  const texts = new TextDecoder().decode(Uint8Array.from(tokens, (token) => token === end ? 0 : token)).split("\0");
  texts.pop(); // the beginning of the next epoch, or nothing
  return texts;
}

test("every document is drawn once an epoch, in an order that the seed and the epoch decide", async () => {
  const corpus = await openCorpus(write("a.jsonl", lines(documents).join("")));
  const one = await epoch(corpus), again = await epoch(corpus), other = await epoch(corpus, { seed: 2 });
  assert.deepEqual(one.slice(0, 70).toSorted(), documents.toSorted());
  assert.deepEqual(again, one);
  assert.notDeepEqual(other, one);
  assert.deepEqual((await epoch(corpus, { shuffle: false })).slice(0, 70), documents);
});

test("each token's target is the token after it in its document", async () => {
  const corpus = await openCorpus(write("a.jsonl", lines(documents).join("")));
  const source = corpus.train({ model, seed: 1, tokenizer: ending, shuffle: false });
  const { inputs, targets } = await source.next(20);
  const all = documents.flatMap((text) => [...new TextEncoder().encode(text), end]);
  assert.deepEqual([...inputs], all.slice(0, 20 * length));
  [...targets].forEach((target, i) => assert.equal(target, all[i] === end ? ignored : all[i + 1], `${i}`));
});

test("several files, several windows: still every document once an epoch, and others are near one another each time", async () => {
  for (let file = 0; file < 5; file++) {
    write(`data/${file}.jsonl`, lines(documents.slice(file * 14, file * 14 + 14)).join(""));
  }
  const corpus = await openCorpus(join(folder, "data"));
  assert.equal(corpus.documents, 70);
  for (const window of [1, 700, 1500, 1e6]) {
    const drawn = (await epoch(corpus, { window })).slice(0, 70);
    assert.deepEqual(drawn.toSorted(), documents.toSorted(), `${window}`);
    const files = drawn.map((text) => Math.floor(Number(/<(\d+)>/.exec(text)![1]) / 14));
    const changes = files.filter((file, i) => i > 0 && file !== files[i - 1]).length;
    if (window === 1) assert.equal(changes, 4, "a file after the other");
    if (window === 1e6) assert.ok(changes > 40, "all mixed");
  }
});

test("from a position on the same batches come, bit for bit, wherever it is", async () => {
  write("data/a.jsonl", lines(documents.slice(0, 30)).join(""));
  write("data/b.jsonl", lines(documents.slice(30)).join(""));
  const corpus = await openCorpus(join(folder, "data"), { heldOut: 0.2 });
  for (const options of [{}, { window: 900 }, { documents: "apart" }, { model: createModel("bert-tiny") }] as const) {
    const make = (from?: CorpusBatches["from"]) => corpus.train({ model, seed: 3, ...options, from });
    const source = make();
    const batches: Batch[] = [], positions: string[] = [];
    for (let i = 0; i < 60; i++) {
      positions.push(JSON.stringify(source.position()));
      batches.push(await source.next(3));
    }
    assert.ok(Number(source.position().epoch) > 0, "beyond an epoch");
    for (let at = 0; at < 60; at += 7) {
      const later = make(JSON.parse(positions[at]));
      for (let i = at; i < Math.min(60, at + 9); i++) assert.deepEqual(await later.next(3), batches[i], `${at}, ${i}`);
    }
  }
});

test("batches asked for at once are those drawn one after another", async () => {
  const corpus = await openCorpus(write("a.jsonl", lines(documents).join("")));
  const [one, other] = [1, 1].map((seed) => corpus.train({ model, seed }));
  const inTurn = [await one.next(2), await one.next(5), await one.next(1)];
  assert.deepEqual(await Promise.all([other.next(2), other.next(5), other.next(1)]), inTurn);
});

test("what is held out is not trained on, whatever the seeds, and both parts are all there are", async () => {
  const corpus = await openCorpus(write("a.jsonl", lines(documents).join("")), { heldOut: 0.1 });
  assert.deepEqual([corpus.documents, corpus.heldOut], [63, 7]);
  const train = (await epoch(corpus, { seed: 5 })).slice(0, 63),
    held = (await epoch(corpus, { seed: 6 }, "held")).slice(0, 7);
  assert.deepEqual([...train, ...held].toSorted(), documents.toSorted());
  assert.deepEqual((await epoch(corpus, { seed: 7 }, "held")).slice(0, 7).toSorted(), held.toSorted());
  const closed = await openCorpus(join(folder, "a.jsonl"));
  assert.throws(() => closed.held({ model, seed: 1 }), {
    name: "UserError",
    message: "Of 70 documents none is held out with a share of 0: say with `heldOut` which share is",
  });
  await assert.rejects(openCorpus(join(folder, "a.jsonl"), { heldOut: 1e-6 }), {
    name: "UserError",
    message: "Of 70 documents none is held out with a share of 0.000001: hold a larger share out",
  });
});

test("apart, a sequence has tokens of one document alone, and the rest is filler that is no target", async () => {
  const corpus = await openCorpus(write("a.jsonl", lines(documents).join("")));
  const source = corpus.train({ model, seed: 1, tokenizer: ending, documents: "apart", shuffle: false });
  const encoder = new TextEncoder();
  for (const [i, text] of documents.entries()) {
    const all = [...encoder.encode(text), end];
    for (let start = 0; start < all.length - 1; start += length) {
      const batch = await source.next(1);
      const used = Math.min(length, all.length - 1 - start);
      assert.deepEqual([...batch.inputs.subarray(0, used)], all.slice(start, start + used), `${i}`);
      assert.deepEqual([...batch.targets.subarray(0, used)], all.slice(start + 1, start + 1 + used));
      assert.ok(batch.targets.subarray(used).every((target) => target === ignored));
      assert.equal(batch.lengths, undefined, "a causal model sees no filler");
      checkBatch(model, batch, 1);
    }
  }
});

test("BERT is given masks over words alone, and how long each sequence is", async () => {
  const bert = createModel("bert-tiny"); // 64 tokens
  const wordpiece = await loadTokenizer(
    fileURLToPath(new URL("../fixtures/tokenizers/wordpiece.json", import.meta.url)),
  );
  const sentence = "Each rank waits for the one before it, and the last one waits for all; ";
  const texts = Array.from({ length: 70 }, (_, i) => sentence.slice(0, 9 + i * 7 % 60));
  const corpus = await openCorpus(write("a.jsonl", lines(texts).join("")));
  const source = corpus.train({ model: bert, seed: 1, tokenizer: wordpiece, documents: "apart", shuffle: false });
  const { mask } = bert.configuration;
  let [words, asked, masked, kept] = [0, 0, 0, 0];
  for (let batch = 0; batch < 60; batch++) {
    const drawn = await source.next(7);
    checkBatch(bert, drawn, 1);
    for (let i = 0; i < 7; i++) {
      const right = Array.from(wordpiece.encode(texts[(batch * 7 + i) % 70]));
      assert.equal(drawn.lengths![i], right.length);
      for (let at = 0; at < 64; at++) {
        const input = drawn.inputs[i * 64 + at], target = drawn.targets[i * 64 + at];
        const isWord = at < right.length && !wordpiece.special!.has(right[at]);
        words += Number(isWord);
        if (target === ignored) {
          if (at < right.length) assert.equal(input, right[at]);
          continue;
        }
        assert.ok(isWord && target === right[at]);
        asked++;
        masked += Number(input === mask);
        kept += Number(input === target);
      }
    }
  }
  assert.ok(Math.abs(asked / words - 0.16) < 0.02, `${asked / words}`); // 0.15, and one of each batch
  assert.ok(
    Math.abs(masked / asked - 0.8) < 0.05 && Math.abs(kept / asked - 0.1) < 0.04,
    `${masked}, ${kept}, ${asked}`,
  );
});

test("text is cut into passages at the ends of lines, and nothing of it is lost", async () => {
  const text = Array.from({ length: 3000 }, (_, i) => `line ${i}, ${"ü日".repeat(i % 30)}`).join("\n");
  const corpus = await openCorpus(write("book.txt", "\ufeff" + text));
  assert.ok(corpus.documents > 10 && corpus.bytes === new TextEncoder().encode(text).length + 3);
  const passages = await epoch(corpus, { shuffle: false });
  assert.equal(passages.slice(0, corpus.documents).join(""), text, "without the mark of the byte order");
  for (const passage of passages.slice(0, corpus.documents - 1)) {
    assert.ok(passage.endsWith("\n") && new TextEncoder().encode(passage).length <= 2 ** 14);
  }
});

test("text without lines or spaces is cut between characters, across blocks, too", async () => {
  const text = "日本語ü".repeat(100_000); // 1.1 MB
  const corpus = await openCorpus(write("book.txt", text));
  const passages =
    (await epoch(corpus, { shuffle: false, model: llama("long", { ...sizes, length: 4096, vocabulary: 257 }) }))
      .slice(0, corpus.documents);
  assert.equal(passages.join("") === text, true);
});

test("a folder's files are found by name, however deep, and those of other kinds by what is asked for", async () => {
  write("a/b/one.txt", "one");
  write("a/two.md", "two");
  write("a/three.ts", "three");
  write("a/.hidden.txt", "hidden");
  const names = ({ files }: Corpus) => files.map((file) => file.slice(folder.length + 3));
  assert.deepEqual(names(await openCorpus(join(folder, "a"))), ["b/one.txt", "two.md"]);
  assert.deepEqual(names(await openCorpus(join(folder, "a"), { match: /\.ts$/ })), ["three.ts"]);
  assert.deepEqual(names(await openCorpus([join(folder, "a/three.ts"), join(folder, "a/b")])), [
    "three.ts",
    "b/one.txt",
  ]);
});

for (const name of ["none", "snappy", "gzip", "zstd", "brotli", "lz4", "plain"]) {
  test(`Parquet by pyarrow is read row by row: ${name}`, async () => {
    const corpus = await openCorpus(fileURLToPath(new URL(`../fixtures/parquet/${name}.parquet`, import.meta.url)));
    const rows = Array.from({ length: 60 }, (_, i) => `Document ${i}: ${"2BP ".repeat(i * 7 % 23)}ü`);
    assert.deepEqual((await epoch(corpus, { shuffle: false })).slice(0, 60), rows);
    assert.deepEqual((await epoch(corpus, { window: 1000 })).slice(0, 60).toSorted(), rows.toSorted());
  });
}
