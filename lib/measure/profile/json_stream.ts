/** Events of Chrome's JSON, one after the other: a file of gigabytes is never in memory as a whole. */
import { Buffer } from "node:buffer";
import { UserError } from "../../errors.ts";

/** More than any event, or all that stands around the events, has. */
const mostBytes = 64 * 2 ** 20;

const quote = 34, comma = 44, openList = 91, backslash = 92, closeList = 93, openObject = 123, closeObject = 125;

/** What a JSON text is made of besides its events. */
export interface AroundEvents {
  /** Of an object, all of it, its list of events empty; of a list, nothing. */
  readonly header: Readonly<Record<string, unknown>>;
  /** Whether there is a list of events: `traceEvents`, or a list that is the whole text. */
  readonly hasEvents: boolean;
}

/**
 * Reads an object with a list `traceEvents`, or a list, and hands out what is in that list. Where the lists' elements end is found
 * byte by byte; what they are says `JSON.parse`, many at once, so that what is no JSON is refused as it is there. The closing
 * bracket of a text that is all list may be missing, as the format has it.
 *
 * @throws {UserError} For what is no JSON, and for a text that ends too early.
 */
export async function readEvents(
  chunks: AsyncIterable<Uint8Array>,
  onEvent: (event: unknown) => void,
): Promise<AroundEvents> {
  /** Bytes that are not yet parsed, and how many were before them. */
  let rest = Buffer.alloc(0), before = 0;
  let outer = ""; // a character a byte until its end, as a chunk may end within a character
  let depth = 0, inString = false, inEvents = false, isList = false, hasEvents = false, started = false;
  /** A backslash was the last byte of a chunk. */
  let skips = false;

  const parse = (bytes: Buffer, at: number) => {
    const text = bytes.toString("utf8");
    if (text.trim() === "") return false;
    let events: unknown[];
    try {
      events = JSON.parse(`[${text}]`);
    } catch {
      throw new UserError(`no JSON after byte ${at}: an event is damaged`);
    }
    for (const event of events) onEvent(event);
    return true;
  };

  for await (const chunk of chunks) {
    const known = rest.length;
    let bytes = known > 0
      ? Buffer.concat([rest, chunk])
      : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let at = known;
    if (!started) {
      if (bytes.length < 3) {
        rest = Buffer.from(bytes);
        continue;
      }
      at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
      bytes = bytes.subarray(at);
      before += at;
      at = 0;
      started = true;
    }
    /** Where what is not parsed begins, and the last comma between events. */
    let from = 0, last = -1;
    for (; at < bytes.length; at++) {
      const byte = bytes[at];
      if (skips) {
        skips = false;
      } else if (inString) {
        if (byte === quote) inString = false;
        else if (byte === backslash) skips = true;
      } else if (byte === quote) {
        inString = true;
      } else if (byte === openObject || byte === openList) {
        if (!inEvents && byte === openList) {
          const isRoot = depth === 0 && outer === "" && bytes.toString("latin1", from, at).trim() === "";
          if (isRoot || depth === 1 && !isList && isEventsKey(outer, bytes, from, at)) {
            outer += isRoot ? "" : `${bytes.toString("latin1", from, at)}[]`;
            [inEvents, hasEvents, isList, from, last] = [true, true, isRoot, at + 1, -1];
            depth = 0;
            continue;
          }
        }
        depth++;
      } else if (byte === closeObject || byte === closeList) {
        if (inEvents && depth === 0) {
          if (byte === closeObject) throw new UserError(`no JSON at byte ${before + at}: a list of events ends with }`);
          const filled = parse(bytes.subarray(from, at), before + from);
          if (!filled && last >= 0) throw new UserError(`no JSON at byte ${before + at}: a comma without an event`);
          [inEvents, from, last] = [false, at + 1, -1];
          depth = isList ? 0 : 1;
        } else if (--depth < 0) {
          throw new UserError(`no JSON at byte ${before + at}: a bracket that nothing opened`);
        }
      } else if (byte === comma && inEvents && depth === 0) {
        last = at;
      }
    }
    if (inEvents && last >= from) {
      if (!parse(bytes.subarray(from, last), before + from)) {
        throw new UserError(`no JSON after byte ${before + from}: a comma without an event`);
      }
      from = last + 1;
    } else if (!inEvents) {
      outer += bytes.toString("latin1", from);
      from = bytes.length;
    }
    before += from;
    rest = Buffer.from(bytes.subarray(from)); // a copy: the chunk may be large, and used again
    if (rest.length > mostBytes || outer.length > mostBytes) {
      throw new UserError(
        hasEvents
          ? "an event of more than 64 MiB, so no trace"
          : "more than 64 MiB without a list traceEvents, so no trace",
      );
    }
  }
  return end();

  function end(): AroundEvents {
    if (!started) outer = rest.toString("latin1");
    if (inEvents) {
      // Chrome's format lets the bracket of a list, and only that, be left out.
      if (!isList || inString || depth > 0) throw new UserError("it ends in the middle of its events: it is cut off");
      parse(rest, before);
      return { header: {}, hasEvents: true };
    }
    if (isList) {
      if (outer.trim() !== "") throw new UserError(`no JSON at byte ${before}: something follows the list`);
      return { header: {}, hasEvents: true };
    }
    if (outer.trim() === "") throw new UserError("it is empty");
    if (depth > 0 || inString) throw new UserError("it ends too early: it is cut off");
    let header: unknown;
    try {
      header = JSON.parse(Buffer.from(outer, "latin1").toString("utf8"));
    } catch {
      throw new UserError("no JSON, outside of its events");
    }
    if (typeof header !== "object" || header === null) throw new UserError("neither an object nor a list, so no trace");
    // A key that is spelled with escapes, or twice, is found here.
    const { traceEvents } = header as { traceEvents?: unknown };
    if (Array.isArray(traceEvents)) { for (const event of traceEvents) onEvent(event); }
    return { header: header as Record<string, unknown>, hasEvents: hasEvents || Array.isArray(traceEvents) };
  }
}

/** Whether what stands before a bracket is the key of the events. */
function isEventsKey(outer: string, bytes: Buffer, from: number, at: number): boolean {
  const near = bytes.toString("latin1", Math.max(from, at - 64), at);
  return /(?<!\\)"traceEvents"\s*:\s*$/.test(at - from < 64 ? outer.slice(-64) + near : near);
}
