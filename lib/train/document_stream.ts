/**
 * Documents in an order, epoch after epoch, of which a bounded part is in memory. Blocks of files are put in an order and read by
 * windows: so many at a time as a bound of bytes allows, and the documents of a window are put in an order of their own.
 * Where all fit into one window, every order of all documents is as likely.
 */
import type { Block } from "./file_blocks.ts";
import { permutation } from "./order.ts";

/** A document's place in the order. */
export interface Place {
  /** How often all documents have been drawn before. */
  readonly epoch: number;
  /** Window of the epoch. */
  readonly window: number;
  /** Number in the window's order. */
  readonly document: number;
}

/** Documents by their place. */
export interface DocumentStream {
  /**
   * A document and the place of the next one; no text where nothing of a window is drawn, and `undefined` where the order has
   * no such place.
   */
  at(place: Place): Promise<{ text?: string; next: Place } | undefined>;
}

/** What decides the order. */
export interface StreamOptions {
  /** Equal seeds, equal orders; documents come as they lie in their files where `shuffle` is false. */
  readonly seed: number;
  readonly shuffle: boolean;
  /** The most bytes of a window; a larger block is a window alone. */
  readonly window: number;
  /** Whether a document is drawn at all, by its number among all. */
  readonly isDrawn: (n: number) => boolean;
}

/** The documents of a window in their order: a block each, and a number in there. */
interface Window {
  readonly blocks: Uint32Array;
  readonly documents: Uint32Array;
}

/** Reads what it needs, and in the second half of a window the next one, meanwhile. */
export function documentStream(
  blocks: readonly Block[],
  { seed, shuffle, window: most, isDrawn }: StreamOptions,
): DocumentStream {
  const firsts: number[] = [];
  blocks.reduce((before, { documents }, block) => firsts[block] = before + documents, 0);
  const firstOf = (block: number) => block === 0 ? 0 : firsts[block - 1];
  const orders = new Map<number, number[][]>(); // by epoch, those of now and next
  const opened = new Map<number, Promise<(document: number) => string>>();
  const loaded = new Map<string, { blocks: readonly number[]; window: Window }>();

  function windowsOf(epoch: number): number[][] {
    let windows = orders.get(epoch);
    if (windows) return windows;
    for (const other of orders.keys()) if (Math.abs(other - epoch) > 1) orders.delete(other);
    windows = [];
    let bytes = Infinity;
    const order = shuffle ? permutation(blocks.length, `blocks:${seed}:${epoch}`) : blocks.keys();
    for (const block of order) {
      bytes += blocks[block].bytes;
      if (bytes > most) {
        windows.push([]);
        bytes = blocks[block].bytes;
      }
      windows.at(-1)!.push(block);
    }
    orders.set(epoch, windows);
    return windows;
  }

  /** The order of a window's documents, without reading them. */
  function windowOf(epoch: number, number: number) {
    const key = `${epoch}:${number}`;
    let found = loaded.get(key);
    if (found) return found;
    const own = windowsOf(epoch)[number];
    const inBlock: number[] = [], documents: number[] = [];
    for (const block of own) {
      for (let document = 0; document < blocks[block].documents; document++) {
        if (!isDrawn(firstOf(block) + document)) continue;
        inBlock.push(block);
        documents.push(document);
      }
    }
    const order = shuffle
      ? permutation(documents.length, `documents:${seed}:${epoch}:${number}`)
      : Uint32Array.from(documents.keys());
    const window = { blocks: order.map((i) => inBlock[i]), documents: order.map((i) => documents[i]) };
    loaded.set(key, found = { blocks: own, window });
    return found;
  }

  function open(block: number) {
    let found = opened.get(block);
    if (!found) {
      opened.set(block, found = blocks[block].read());
      found.catch(() => opened.delete(block)); // read again by whoever needs it
    }
    return found;
  }

  const after = ({ epoch, window }: Place): Place =>
    window + 1 < windowsOf(epoch).length
      ? { epoch, window: window + 1, document: 0 }
      : { epoch: epoch + 1, window: 0, document: 0 };

  /** Reads a window ahead, block after block, so that nobody waits for it; errors come when its documents are asked for. */
  let ahead = "";
  async function readAhead({ epoch, window }: Place) {
    if (ahead === `${epoch}:${window}`) return;
    ahead = `${epoch}:${window}`;
    const next = windowOf(epoch, window);
    try {
      for (const block of next.blocks) await open(block);
    } catch {
      // See `open`.
    }
  }

  function forget(now: Place) {
    const next = after(now);
    const keys = [now, next].map(({ epoch, window }) => `${epoch}:${window}`);
    for (const key of loaded.keys()) if (!keys.includes(key)) loaded.delete(key);
    const needed = new Set([...loaded.values()].flatMap(({ blocks }) => blocks));
    for (const block of opened.keys()) if (!needed.has(block)) opened.delete(block);
  }

  let current = "";
  return {
    async at(place) {
      const { epoch, window: number, document } = place;
      if (number >= windowsOf(epoch).length) return undefined;
      const { window } = windowOf(epoch, number);
      const count = window.documents.length;
      if (count === 0 && document === 0) return { next: after(place) };
      if (document >= count) return undefined;
      if (current !== `${epoch}:${number}`) {
        current = `${epoch}:${number}`;
        forget(place);
      }
      if (document >= count / 2) void readAhead(after(place));
      const text = (await open(window.blocks[document]))(window.documents[document]);
      return { text, next: document + 1 < count ? { ...place, document: document + 1 } : after(place) };
    },
  };
}
