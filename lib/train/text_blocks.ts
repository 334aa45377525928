/** Plain text: files are cut into passages, which are documents. */
import { type Block, blockBytes, characterStart, expectUtf8, stretches, textOf } from "./file_blocks.ts";

/** The most bytes of a passage. */
export const passageBytes = 2 ** 14;

const newline = 0x0a, space = 0x20;

/**
 * The passages of a file: at most {@link passageBytes} each, cut behind the last end of a line in their second half, or else behind the
 * last space there, or else between two characters.
 *
 * @throws {UserError} When it cannot be read, is empty, or is not UTF-8.
 */
export async function textBlocks(path: string, size: number = blockBytes): Promise<Block[]> {
  const blocks: Block[] = [];
  const cut = (bytes: Uint8Array) => cutAt(bytes, bytes.length);
  for await (const { start, bytes, digest, again } of stretches(path, size, cut, "a text")) {
    expectUtf8(path, bytes, start);
    blocks.push({
      ...{ bytes: bytes.length, documents: passages(bytes).length, digest },
      async read() {
        const bytes = await again(), ends = passages(bytes);
        return (document) => {
          const from = document === 0 ? 0 : ends[document - 1];
          return textOf(path, bytes.subarray(from, ends[document]), start + from);
        };
      },
    });
  }
  return blocks;
}

/** Where each passage ends. */
function passages(bytes: Uint8Array): number[] {
  const ends: number[] = [];
  for (let start = 0; start < bytes.length;) {
    const rest = bytes.length - start;
    start += rest <= passageBytes ? rest : cutAt(bytes.subarray(start, start + passageBytes + 1), passageBytes);
    ends.push(start);
  }
  return ends;
}

/** Where a text is cut that goes on: at `most` bytes or before. */
function cutAt(bytes: Uint8Array, most: number): number {
  for (const sign of [newline, space]) {
    const at = bytes.lastIndexOf(sign, most - 1);
    if (at >= most / 2) return at + 1;
  }
  // At the end of what has been read nobody knows whether the last character is whole.
  return characterStart(bytes, Math.min(most, bytes.length - 1)) || most;
}
