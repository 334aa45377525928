/** Figures as PDF: pdfkit writes what plotly draws, as vectors and with its fonts. */
import { createRequire } from "node:module";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { optional } from "../optional.ts";
import { drawer, type FigureOptions } from "./drawing.ts";
import type { Figure } from "./style.ts";
import { titleOf } from "./title.ts";

/** The part of pdfkit that is used here. */
type Document = new (options: object) => Readable & { end(): void };
/** svg-to-pdfkit. */
type Draw = (document: InstanceType<Document>, svg: string, x: number, y: number, options: object) => void;

/** Points (1/72 inch) in a pixel (1/96 inch). */
const points = 0.75;

/**
 * Draws a figure in the house style as a PDF of one page of its size: 920 pixels are 690 points. Lines are vectors, texts
 * are texts, and their font, Open Sans, is part of the file. What it says of itself is the document's subject.
 *
 * @throws {UserError} Where a package that it needs is not installed.
 * @example
 * ```ts
 * import { ganttFigure, generate, simulate } from "twobp";
 * import { figurePdf } from "twobp/report";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * const pdf = await figurePdf(ganttFigure(schedule, simulate(schedule)));
 * console.log(pdf.length > 1000); // true
 * ```
 */
export async function figurePdf(figure: Figure, options: FigureOptions = {}): Promise<Uint8Array> {
  const require = createRequire(import.meta.url);
  const Document = await optional("pdfkit", "PDFs are written by", () => require("pdfkit") as Document);
  const drawSvg = await optional("svg-to-pdfkit", "PDFs are written by", () => require("svg-to-pdfkit") as Draw);
  const { draw, fonts } = await drawer();
  const { svg, ...size } = await draw(figure, options);
  const [width, height] = [points * size.width, points * size.height];
  // Without the font of the bundle one of the 14 that every reader has.
  const { regular, bold, italic } = fonts ??
    { regular: "Helvetica", bold: "Helvetica-Bold", italic: "Helvetica-Oblique" };
  const title = titleOf(figure);
  const info = {
    Creator: "twobp",
    ...(title ? { Title: title } : {}),
    ...(options.about ? { Subject: options.about } : {}),
  };
  const document = new Document({ size: [width, height], margin: 0, font: regular, info });
  const bytes = buffer(document);
  const fontCallback = (_family: string, isBold: boolean, isItalic: boolean) =>
    isBold ? bold : isItalic ? italic : regular;
  drawSvg(document, svg, 0, 0, { width, height, fontCallback });
  document.end();
  return await bytes;
}
