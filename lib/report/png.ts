/** Figures as PNG: resvg paints what plotly draws. */
import { drawer, type FigureOptions, fontOptions } from "./drawing.ts";
import type { Figure } from "./style.ts";

/** How to paint. */
export interface PngOptions extends FigureOptions {
  /** Pixels painted for one of the drawing; default 1. */
  scale?: number;
}

/**
 * Paints a figure in the house style: 1 s for the first one of a process, 0.2 s for another.
 *
 * @throws {UserError} Where a package that it needs is not installed.
 * @example
 * ```ts
 * import { ganttFigure, generate, simulate } from "twobp";
 * import { figurePng } from "twobp/report";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * const png = await figurePng(ganttFigure(schedule, simulate(schedule)));
 * console.log(png.length > 1000); // true
 * ```
 */
export async function figurePng(figure: Figure, { scale = 1, ...options }: PngOptions = {}): Promise<Uint8Array> {
  const { draw, Renderer, fonts } = await drawer();
  const { svg } = await draw(figure, options);
  const paint = { font: fontOptions(fonts), background: "#ffffff", fitTo: { mode: "zoom", value: scale } };
  const png = new Renderer(svg, paint).render().asPng();
  return options.about ? withComment(png, options.about) : png;
}

/** Adds an international text chunk (PNG, third edition, 11.3.3.4) with the keyword "Comment" after the header. */
function withComment(png: Uint8Array, text: string): Uint8Array {
  // Keyword, not compressed, no language, no translated keyword, text.
  const body = Buffer.from(`iTXtComment\0\0\0\0\0${text}`);
  const number = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const header = 8 + 25; // signature, and the chunk IHDR
  return Buffer.concat([
    png.subarray(0, header),
    number(body.length - 4),
    body,
    number(crc32(body)),
    png.subarray(header),
  ]);
}

/** The check of a chunk (PNG, annex D). */
function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
