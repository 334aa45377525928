import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { cacheFolder, inCache, privateFolder } from "../../lib/gpu/cache_folder.ts";
import { start } from "../spawn.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-cache-"));
after(() => rmSync(root, { recursive: true, force: true }));
const user = process.getuid?.() ?? 0;
const isLinux = process.platform === "linux" && process.arch === "x64";

/** A process that no longer runs. */
const dead = 4_194_305; // above the most that Linux gives
const spoiled = (name: string, pid: number) => `.${name}.${hostname().slice(0, 60)}.${pid}.0.tmp`;

/** Runs `work` with other values of HOME, XDG_CACHE_HOME and TMPDIR. */
function under<T>(values: Record<string, string | undefined>, work: () => T): T {
  const names = ["HOME", "XDG_CACHE_HOME", "TMPDIR"];
  const before = names.map((name) => [name, process.env[name]] as const);
  const set = (name: string, value?: string) =>
    value === undefined ? delete process.env[name] : process.env[name] = value;
  for (const name of names) set(name, values[name]);
  try {
    return work();
  } finally {
    for (const [name, value] of before) set(name, value);
  }
}

test("the cache is found under odd values of HOME and XDG_CACHE_HOME", { skip: !isLinux }, () => {
  const of = (name: string) => join(root, "odd", name);
  mkdirSync(of("shared"), { recursive: true });
  writeFileSync(of("file"), "");
  mkdirSync(of("own"));
  symlinkSync(of("own"), of("link"));
  symlinkSync(of("circle"), of("circle"));
  mkdirSync(of("open"));
  chmodSync(of("open"), 0o777);
  const fallback = join(of("shared"), `twobp-${user}`);
  const at = (values: Record<string, string | undefined>) => under({ TMPDIR: of("shared"), ...values }, cacheFolder);
  const home = join(of("home"), ".cache", "twobp");
  assert.equal(at({ HOME: of("home") }), home);
  assert.equal(at({ HOME: of("home"), XDG_CACHE_HOME: "" }), home);
  assert.equal(at({ HOME: of("home"), XDG_CACHE_HOME: "relative/folder" }), home); // as its specification says
  assert.equal(at({ HOME: of("home"), XDG_CACHE_HOME: of("a:b c\u00fc") }), join(of("a:b c\u00fc"), "twobp"));
  assert.equal(at({ HOME: of("home"), XDG_CACHE_HOME: of("link") }), join(of("own"), "twobp")); // the user's own
  for (const name of ["file", "circle", "open"]) {
    assert.equal(at({ HOME: of("home"), XDG_CACHE_HOME: of(name) }), fallback, name);
  }
  for (const unwritable of ["/proc/1", "/dev/null", `/${"x".repeat(300)}`]) {
    assert.equal(at({ HOME: of("home"), XDG_CACHE_HOME: unwritable }), fallback, unwritable);
  }
  assert.equal(existsSync("relative"), false);
  assert.equal(statSync(home).mode & 0o777, 0o700);
  assert.equal(statSync(fallback).mode & 0o777, 0o700);
  // Without a HOME the password file has one.
  const listed = join(userInfo().homedir, ".cache", "twobp");
  for (const HOME of [undefined, "", "relative"]) {
    assert.ok([listed, fallback].includes(at({ HOME })!), `${HOME}`);
  }
  assert.equal(at({ XDG_CACHE_HOME: of("own"), TMPDIR: "relative" }), join(of("own"), "twobp"));
});

test("a folder that somebody else could change is never used", { skip: !isLinux }, () => {
  const of = (name: string) => join(root, "planted", name);
  mkdirSync(of("shared/twobp"), { recursive: true });
  chmodSync(of("shared"), 0o777);
  assert.throws(() => privateFolder(of("shared/twobp")), /shared can be written by everybody$/);
  chmodSync(of("shared"), 0o1777); // as the system's temporary folder
  chmodSync(of("shared/twobp"), 0o777);
  assert.equal(privateFolder(of("shared/twobp")), of("shared/twobp"));
  assert.equal(statSync(of("shared/twobp")).mode & 0o777, 0o700);
  writeFileSync(of("file"), "");
  assert.throws(() => privateFolder(of("file")), /it is not a folder$/);
  symlinkSync("/usr", of("link"));
  if (user !== 0) {
    assert.throws(() => privateFolder(of("link")), /belongs to another user \(0\)$/);
    return;
  }
  mkdirSync(of("theirs/twobp"), { recursive: true });
  chownSync(of("theirs/twobp"), 12_345, 12_345);
  assert.throws(() => privateFolder(of("theirs/twobp")), /belongs to another user \(12345\)$/);
  symlinkSync(of("theirs/twobp"), of("planted"));
  assert.throws(() => privateFolder(of("planted")), /belongs to another user \(12345\)$/);
  chownSync(of("theirs/twobp"), 0, 0);
  chownSync(of("theirs"), 12_345, 12_345); // who could put another folder in its place
  assert.throws(() => privateFolder(of("theirs/twobp")), /theirs belongs to another user \(12345\)$/);
});

test("where nothing can be written the message is one line with every folder and its reason", async () => {
  const full = Object.assign(new Error("ENOSPC: no space left\non device"), { code: "ENOSPC" });
  const denied = Object.assign(new Error("EDQUOT"), { code: "EDQUOT" });
  const errors = [full, denied];
  const failing = () => {
    throw errors.shift() ?? full;
  };
  const folders = { HOME: join(root, "full"), XDG_CACHE_HOME: join(root, "full"), TMPDIR: join(root, "full/tmp") };
  await under(folders, () =>
    assert.rejects(inCache("the unpacked driver", failing), (error: Error) => {
      assert.equal(error.name, "UserError");
      assert.match(
        error.message,
        /^There is no place for the unpacked driver, \/\S+full\/twobp: the disk is full; \/\S+: the disk quota is used up; [^\n]*\. Set XDG_CACHE_HOME to a folder of your own with room in it$/,
      );
      return true;
    }));
});

interface Unpacked {
  folder: string;
  hash: string;
  adapter?: string;
  error?: string;
}

async function unpack(cache: string, ...args: string[]): Promise<Unpacked> {
  const { code, stdout, stderr } = await start("tests/gpu/unpacked.ts", args, { XDG_CACHE_HOME: cache }).done;
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout);
}

test("the bundled driver computes from a folder with a colon and a blank in its name, a copy for each rank", {
  skip: !isLinux,
}, async () => {
  const { folder, adapter } = await unpack(join(root, "a:b c"), "device");
  assert.ok(folder.startsWith(join(root, "a:b c", "twobp", "swiftshader-")));
  assert.match(adapter!, /^SwiftShader.*, 2 copies$/);
});

test("a damaged, half-written or foreign driver is found out and unpacked again", { skip: !isLinux }, async () => {
  const cache = join(root, "damaged");
  const { folder, hash } = await unpack(cache);
  const library = join(folder, "libvk_swiftshader_0.so");
  const packed = join(dirname(folder), "unpacked", "libvk_swiftshader.so");
  const flip = (path: string) => {
    const bytes = readFileSync(path);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(path, bytes);
  };
  const damages: [string, () => void][] = [
    ["one bit", () => flip(library)],
    ["half", () => truncateSync(library, statSync(library).size >> 1)],
    ["foreign", () => writeFileSync(library, "not a library")],
    [
      "foreign, with a list that fits",
      () => (writeFileSync(library, "x"), writeFileSync(join(folder, "contents.json"), "{}")),
    ],
    ["missing", () => rmSync(join(folder, "icd.json"))],
    ["one too many", () => writeFileSync(join(folder, "libX11.so"), "")],
    ["a link", () => (rmSync(library), symlinkSync("/bin/true", library))],
    ["a file in its place", () => (rmSync(folder, { recursive: true }), writeFileSync(folder, ""))],
    ["both copies", () => (flip(library), flip(packed))],
  ];
  for (const [what, damage] of damages) {
    damage();
    assert.deepEqual(await unpack(cache), { folder, hash }, what);
  }
  assert.deepEqual(readdirSync(dirname(folder)).sort(), ["rank0", "unpacked"]);
  const before = statSync(library).mtimeMs;
  await unpack(cache);
  assert.equal(statSync(library).mtimeMs, before); // a sound one stays
});

test("processes that unpack at once all end with the driver, and leftovers of killed ones are swept", {
  skip: !isLinux,
}, async () => {
  const cache = join(root, "at once");
  const { folder } = await unpack(cache);
  const bundle = dirname(folder);
  for (const name of readdirSync(bundle)) rmSync(join(bundle, name), { recursive: true });
  for (const name of ["unpacked", "rank0"]) {
    mkdirSync(join(bundle, spoiled(name, dead)));
    writeFileSync(join(bundle, spoiled(name, dead), "libvk_swiftshader.so"), "half");
  }
  mkdirSync(join(bundle, spoiled("rank0", process.pid))); // of one that is at it
  const found = await Promise.all([1, 2, 3].map(() => unpack(cache)));
  for (const each of found) assert.deepEqual(each, found[0]);
  assert.equal(found[0].folder, folder);
  assert.deepEqual(readdirSync(bundle).sort(), [spoiled("rank0", process.pid), "rank0", "unpacked"].sort());
});
