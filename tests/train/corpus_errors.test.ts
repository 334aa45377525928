import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createModel } from "../../lib/models/registry.ts";
import { openCorpus } from "../../lib/train/corpus.ts";
import { byteTokenizer, loadTokenizer } from "../../lib/train/tokenizer.ts";

let folder: string;
beforeEach(() => folder = mkdtempSync(join(tmpdir(), "corpus-")));
afterEach(() => rmSync(folder, { recursive: true }));

const model = createModel("llama-tiny");
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));
const error = (message: string | RegExp) => ({ name: "UserError", message });
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const opening = (name: string, content: string | Uint8Array, message: RegExp, options = {}) =>
  assert.rejects(openCorpus(file(name, content), options), error(message));

test("a line that is none is named by its number, before anything runs", async () => {
  const good = '{"text": "one"}\n\n{"text": "two"}\n';
  await opening("a.jsonl", good + '{"text": ', /^Line 4 of .*a\.jsonl is not JSON: .+$/);
  await opening("a.jsonl", good + "[1]\n", /^Line 4 of .* must be an object with a text in "text", not \[1\]$/);
  await opening("a.jsonl", good + "null\n", /^Line 4 of .* must be an object with a text in "text", not null$/);
  await opening(
    "a.jsonl",
    good + '{"content": "x", "id": 3}\n',
    /^Line 4 of .* has no "text"; it has "content", "id"\. The option `field` says where texts are$/,
  );
  await opening("a.jsonl", '{"text": "one"}', /^Line 1 of .* has no "body"; it has "text"\./, { field: "body" });
  await opening("a.jsonl", good + '{"text": 3}\n', /^Line 4 of .*: "text" must be a text, not 3$/);
  // Behind the first block of a file, too.
  const many = `{"text": "${"x".repeat(1000)}"}\n`.repeat(5000);
  await opening("a.jsonl", many + "{}\n", /^Line 5001 of .* has no "text"; it has nothing\./);
});

test("files that are empty, not UTF-8, packed or of another kind are refused by name", async () => {
  for (const name of ["a.txt", "a.jsonl", "a.parquet"]) await opening(name, "", new RegExp(`${name} is empty$`));
  await opening("a.jsonl", "\n \n", /a\.jsonl has no lines with something in them$/);
  const bytes = new TextEncoder().encode("héllo wörld");
  for (const [at, wrong] of [[3, 0xff], [1, 0x20], [0, 0xbf]] as const) {
    const place = at === 1 ? 2 : at; // 0x20 0xa9: the second byte is what cannot be
    await opening(
      "a.txt",
      bytes.with(at, wrong),
      new RegExp(`a\\.txt is not UTF-8: byte ${place} does not go on as UTF-8 does$`),
    );
  }
  await opening("a.txt", bytes.subarray(0, 2), /a\.txt is not UTF-8: byte [12] does not go on as UTF-8 does$/);
  const far = new Uint8Array(3_000_000).fill(0x61);
  far[2_500_000] = 0xc0;
  await opening("a.txt", far, /is not UTF-8: byte 2500000 does not go on/);
  await opening(
    "a.jsonl",
    Uint8Array.of(...new TextEncoder().encode('{"text": "'), 0xff, 0x22, 0x7d),
    /is not UTF-8: byte 10 /,
  );
  await opening("a.jsonl.gz", "x", /a\.jsonl\.gz is packed: unpack it first/);
  await opening(
    "a.json",
    "[]",
    /a\.json is JSON: JSON lines, one object a line, are read from files named \.jsonl or \.ndjson$/,
  );
});

test("what is not there is said in words", async () => {
  await assert.rejects(openCorpus(join(folder, "none")), error(/none cannot be read: there is no such file$/));
  mkdirSync(join(folder, "empty"));
  await assert.rejects(
    openCorpus(join(folder, "empty")),
    error(/empty has no files that match .*; the option `match` says/),
  );
  await assert.rejects(openCorpus([]), error("openCorpus: path must be a list of one or more, each a string, not []"));
  const path = file("a.txt", "text");
  await assert.rejects(
    openCorpus(path, { heldOut: 0.7 }),
    error(/^openCorpus: heldOut must be a number, 0 or more and at most 0\.5, not 0\.7$/),
  );
  await assert.rejects(
    openCorpus(path, { match: /a/g }),
    error(/^openCorpus: match must be a regular expression without the flags g and y/),
  );
  await assert.rejects(
    openCorpus(path, { filed: "x" } as never),
    error(/^openCorpus: there is no "filed"; there are field, match, heldOut$/),
  );
});

test("Parquet without the column, with another type, without rows or damaged is refused", async () => {
  const snappy = fixture("parquet/snappy.parquet");
  await assert.rejects(
    openCorpus(snappy, { field: "body" }),
    error(/snappy\.parquet has no column "body"; it has "id", "text", "extra"\./),
  );
  await assert.rejects(
    openCorpus(snappy, { field: "id" }),
    error(/^Column "id" of .* must hold texts, strings in UTF-8, not INT64$/),
  );
  await assert.rejects(
    openCorpus(snappy, { field: "extra" }),
    error(/^Column "extra" of .* must hold texts, .* not several values$/),
  );
  await assert.rejects(openCorpus(fixture("parquet/empty.parquet")), error(/empty\.parquet has no rows$/));
  await opening("a.parquet", "no Parquet at all", /a\.parquet cannot be read as Parquet: .+$/);
});

test("what is wrong with a row of Parquet is said when it is drawn, and nothing of its batch has been", async () => {
  for (
    const [name, message] of [
      ["null", /^Row 31 of .*null\.parquet has nothing in "text"$/],
      ["not_utf8", /^Row 2 of .*not_utf8\.parquet: "text" is not UTF-8$/],
    ] as const
  ) {
    const corpus = await openCorpus(fixture(`parquet/${name}.parquet`));
    const source = corpus.train({ model, seed: 1, shuffle: false });
    const before = source.position();
    await assert.rejects(source.next(50), error(message));
    assert.deepEqual(source.position(), before);
  }
});

test("a model that does not fit is refused before a batch is drawn", async () => {
  const corpus = await openCorpus(file("a.txt", "some text to read"));
  const bpe = await loadTokenizer(fixture("tokenizers/bpe.json"));
  const make = (options: Record<string, unknown>) => () => corpus.train({ model, seed: 1, ...options } as never);
  assert.throws(
    make({ tokenizer: bpe }),
    error(
      "Corpus.train: the tokenizer has 330 tokens, llama-tiny only 256: take its own tokenizer, or a model with as large a vocabulary",
    ),
  );
  assert.throws(
    make({ model: createModel("resnet-tiny") }),
    error("Corpus.train: resnet-tiny takes no token ids, so no texts"),
  );
  assert.throws(
    make({ model: "llama" }),
    error('Corpus.train: model must be a model, as createModel() returns, not "llama"'),
  );
  assert.throws(make({ tokenizer: "bytes" }), error(/^Corpus\.train: tokenizer must be a Tokenizer, .* not "bytes"$/));
  assert.throws(
    make({ documents: "mixed" }),
    error('Corpus.train: documents must be one of "joined", "apart", not "mixed"'),
  );
  assert.throws(make({ seed: -1 }), error(/^Corpus\.train: seed must be/));
  assert.throws(make({ sead: 1 }), error(/^Corpus\.train: there is no "sead"; there are model, seed, tokenizer, /));
  const lying = { ...byteTokenizer(), encode: () => [300] };
  await assert.rejects(
    corpus.train({ model, seed: 1, tokenizer: lying }).next(1),
    error('The tokenizer "bytes" gave token 300; its tokens are 0 to 255'),
  );
  await assert.rejects(
    corpus.train({ model, seed: 1, tokenizer: { ...byteTokenizer(), end: 256 } }).next(1),
    error('The tokenizer "bytes" ends documents with 256; its tokens are 0 to 255'),
  );
});

test("documents without anything to predict are an end, not a loop without one", async () => {
  const corpus = await openCorpus(file("a.jsonl", '{"text": ""}\n{"text": ""}\n'));
  await assert.rejects(
    corpus.train({ model, seed: 1 }).next(1),
    error("No document has enough tokens: there is nothing to predict"),
  );
  const single = await openCorpus(file("b.jsonl", '{"text": "x"}\n'));
  await assert.rejects(
    single.train({ model, seed: 1, documents: "apart" }).next(1),
    error(/^No document has enough tokens/),
  );
});

test("a position of other data or other options is refused by what differs", async () => {
  const corpus = await openCorpus(file("a.txt", "some text to read"));
  const from = corpus.train({ model, seed: 1 }).position();
  const make = (options: Record<string, unknown>) => () => corpus.train({ model, seed: 1, from, ...options } as never);
  assert.throws(make({ seed: 2 }), error("corpus: the position to go on from is of seed 1; here it is 2"));
  assert.throws(
    make({ documents: "apart" }),
    error('corpus: the position to go on from is of layout "joined"; here it is "apart"'),
  );
  assert.throws(
    make({ tokenizer: { ...byteTokenizer(), name: "mine" } }),
    error(/is of tokenizer "bytes"; here it is "mine"$/),
  );
  assert.throws(
    make({ from: { ...from, token: -3 } }),
    error(/^corpus: token of the position .* must be a whole number, 0 or more, not -3$/),
  );
  const other = await openCorpus(file("a.txt", "some text to read on"));
  assert.throws(
    () => other.train({ model, seed: 1, from }),
    error(/^corpus: the position to go on from is of files "/),
  );
  const far = corpus.train({ model, seed: 1, from: { ...from, document: 5 } });
  await assert.rejects(far.next(1), error("The position to go on from is behind the last document"));
  const behind = corpus.train({ model, seed: 1, from: { ...from, token: 500 } });
  await assert.rejects(behind.next(1), error("The position to go on from is behind the end of its document"));
});

test("a file that changes while it is read is noticed", async () => {
  for (const [name, content] of [["a.txt", "some text to read\n"], ["a.jsonl", '{"text": "some text"}\n']]) {
    const path = file(name, content.repeat(2000));
    const corpus = await openCorpus(path);
    truncateSync(path, 100);
    await assert.rejects(
      corpus.train({ model, seed: 1 }).next(1),
      error(new RegExp(`${name} has become shorter while it was in use$`)),
    );
  }
  const line = '{"text": "some text"}\n',
    changes: [string, string, string, string][] = [
      ["a line is gone", "b.jsonl", line.repeat(20), line.repeat(19) + "\n".repeat(line.length)],
      ["as many lines of the same length", "c.jsonl", line.repeat(20), line.replace("some", "more").repeat(20)],
      ["a text of the same length", "c.txt", "some text\n".repeat(500), "some test\n".repeat(500)],
    ];
  for (const [what, name, before, after] of changes) {
    assert.equal(before.length, after.length);
    const path = file(name, before), corpus = await openCorpus(path), source = corpus.train({ model, seed: 1 });
    const from = source.position();
    writeFileSync(path, after);
    const changed = error(
      new RegExp(`${name} has changed while it was in use: leave it as it is for as long as it is`),
    );
    await assert.rejects(source.next(1), changed, what);
    // And whoever would go on with it later is told.
    const later = await openCorpus(path);
    assert.throws(() => later.train({ model, seed: 1, from }), error(/the position to go on from is of files "/), what);
    writeFileSync(path, before);
    await source.next(1); // nothing was drawn of the other one
    (await openCorpus(path)).train({ model, seed: 1, from });
  }
});

test("a Parquet file that is replaced by one of the same rows is noticed", async () => {
  const path = join(folder, "a.parquet");
  copyFileSync(fixture("parquet/plain.parquet"), path);
  utimesSync(path, 1, 1);
  const corpus = await openCorpus(path);
  await corpus.train({ model, seed: 1 }).next(1);
  copyFileSync(fixture("parquet/plain.parquet"), path); // as long, and later
  await assert.rejects(
    corpus.train({ model, seed: 1 }).next(1),
    error(/a\.parquet has changed while it was in use: leave it as it is/),
  );
});
