import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { deflateSync } from "node:zlib";
import { readImage } from "../../lib/train/image_files.ts";
import { readTensors } from "../models/fixture.ts";

const images = fileURLToPath(new URL("../fixtures/images", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "image-files-"));
after(() => rmSync(folder, { recursive: true }));

test("images of every depth, palette, transparency, orientation, profile and colour transform show what Pillow sees", async () => {
  const expected = readTensors("images.expected.safetensors");
  const files = readdirSync(images);
  assert.equal(files.length, 41);
  for (const file of files) {
    const { width, height, rgb } = await readImage(join(images, file));
    const right = expected.get(file)!;
    assert.deepEqual([width, height], /orientation_[5-8]/.test(file) ? [9, 13] : [13, 9], file);
    assert.equal(rgb.length, right.length, file);
    const worst = Math.max(...rgb.map((value, i) => Math.abs(255 * value - right[i])));
    // Those with a colour profile go through two different libraries for colours; Pillow rounds inks to bytes.
    const most = /^profile/.test(file) ? 1.0001 : /^(cmyk|ycck)/.test(file) ? 0.51 : 1e-4;
    assert.ok(worst <= most, `${file}: off by ${worst} of 255`);
  }
});

const write = (name: string, bytes: Uint8Array | string) => {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
};

const refused = (path: string, reason: RegExp) =>
  assert.rejects(readImage(path), (error: Error) => {
    assert.equal(error.name, "UserError");
    const start = `${path} cannot be read as a PNG or JPEG image: `;
    assert.ok(error.message.startsWith(start) && !error.message.includes("\n"), error.message);
    assert.match(error.message.slice(start.length), reason);
    return true;
  });

test("a damaged image is refused, however little of it is missing", async () => {
  const jpeg = readFileSync(join(images, "ycc_444.jpg")), png = readFileSync(join(images, "rgb_8.png"));
  for (const share of [0.02, 0.1, 0.5, 0.9, 0.95]) {
    for (const [name, good] of [["cut.jpg", jpeg], ["cut.png", png]] as const) {
      await refused(write(name, good.subarray(0, Math.ceil(share * good.length))), /./);
    }
  }
  await refused(write("cut.jpg", jpeg.subarray(0, jpeg.length - 5)), /premature end of JPEG/);
  for (let at = 8; at < png.length - 12; at += 7) { // a checksum guards every byte
    const changed = Uint8Array.from(png);
    changed[at] ^= 0x10;
    await refused(write("changed.png", changed), /./);
  }
});

test("what is neither PNG nor JPEG is refused by its first bytes, whatever its name", async () => {
  await refused(write("empty.png", ""), /^it begins as neither does$/);
  await refused(write("text.jpg", "this is no image"), /^it begins as neither does$/);
  await refused(write("drawing.png", '<svg xmlns="http://www.w3.org/2000/svg" width="5" height="5"/>'), /neither/);
  await refused(write("animation.png", "GIF89a"), /neither/);
  await refused(join(folder, "none.png"), /no such file/);
  await refused(folder, /^it is not a file$/);
});

test("where sharp cannot be loaded, reading an image says what to install", (t) => {
  if (!("Deno" in globalThis)) return t.skip("only Deno can be told that a package is elsewhere");
  const map = write("map.json", JSON.stringify({ imports: { sharp: "./none.js" } }));
  const module = new URL("../../lib/train/image_files.ts", import.meta.url).href;
  const program = write(
    "program.ts",
    `const { readImage } = await import("${module}"); readImage("x.png").catch((error) => console.log(\`\${error}\`));`,
  );
  const { stdout, stderr } = spawnSync(process.execPath, ["run", "-A", "--no-check", "--import-map", map, program], {
    encoding: "utf8",
  });
  assert.match(
    stdout,
    /^UserError: Images are decoded by the package sharp, which cannot be loaded \(npm install sharp\): .*none\.js/,
    stderr,
  );
});

/** CRC-32, as PNG has it. */
function checksum(bytes: Uint8Array): number {
  let rest = -1;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 && 0xedb88320);
  }
  return ~rest >>> 0;
}

test("a few bytes that claim 100,000 x 100,000 pixels are refused before any memory is taken", async () => {
  const chunk = (kind: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(checksum(body));
    return Buffer.concat([length, body, sum]);
  };
  const bomb = (width: number, height: number) => {
    const header = Buffer.alloc(13);
    header.writeUInt32BE(width, 0);
    header.writeUInt32BE(height, 4);
    header.set([8, 2], 8); // 8 bits, red, green and blue
    const rows = chunk("IDAT", deflateSync(new Uint8Array(1000)));
    const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
    return Buffer.concat([signature, chunk("IHDR", header), rows, chunk("IEND", new Uint8Array())]);
  };
  const before = process.memoryUsage().rss;
  for (const [width, height] of [[100_000, 100_000], [8193, 8192]]) {
    const reason = new RegExp(`^it has ${width} x ${height} pixels, more than the 67108864 that are read$`);
    await refused(write("bomb.png", bomb(width, height)), reason);
  }
  await refused(write("bomb.png", bomb(2_000_000_000, 1)), /^Input buffer has corrupt header/);
  assert.ok(process.memoryUsage().rss - before < 100e6);
});
