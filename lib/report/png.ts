/**
 * Figures as PNG without a browser: plotly draws SVG into jsdom, resvg paints it. jsdom knows no layout, so sizes of texts
 * are measured by the painter itself: what plotly makes room for is what is painted.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { withBundle } from "../gpu/bundle.ts";
import { optional } from "../optional.ts";
import { plotlySource } from "./plotly.ts";
import { type Figure, houseLayout } from "./style.ts";

/** How to paint. */
export interface PngOptions {
  /** Width of the drawing in pixels; default 920. Its height is the layout's, or 450. */
  width?: number;
  /** Pixels painted for one of the drawing; default 1. */
  scale?: number;
}

/** The part of resvg that is used here. */
type Resvg = new (svg: string, options: object) => {
  getBBox(): { width: number } | undefined;
  render(): { asPng(): Uint8Array };
};

interface Painter {
  draw(figure: Figure, width: number, height: number): Promise<string>;
  paint(svg: string, scale: number): Uint8Array;
}

let painter: Promise<Painter> | undefined;

/**
 * Paints a figure in the house style: 1 s for the first one of a process, 0.2 s for another.
 *
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
export async function figurePng(figure: Figure, { width = 920, scale = 1 }: PngOptions = {}): Promise<Uint8Array> {
  painter ??= createPainter();
  const { draw, paint } = await painter;
  return paint(await draw(figure, width, Number(figure.layout?.height ?? 450)), scale);
}

async function createPainter(): Promise<Painter> {
  // Loaded here and not above: who draws no PNG pays nothing for them.
  const require = createRequire(import.meta.url);
  const load = () => require("@resvg/resvg-js") as { Resvg: Resvg };
  const { Resvg: Renderer } = await optional("@resvg/resvg-js", "Figures are painted by", load);
  const { JSDOM } = await optional("jsdom", "Figures are drawn in", () => require("jsdom"));
  const font = await fontOptions();
  const { window } = new JSDOM("<!DOCTYPE html><body></body>", { runScripts: "dangerously", pretendToBeVisual: true });
  prepareWindow(window, createRuler((svg) => new Renderer(svg, { font }).getBBox()));
  window.eval(plotlySource());
  return {
    async draw({ data, layout }, width, height) {
      const div = window.document.createElement("div");
      window.document.body.append(div);
      const size = { ...structuredClone(houseLayout(layout)), width, height, autosize: false };
      // As text, so that the arrays are those of jsdom's realm: plotly asks for their constructor.
      const [traces, full] = [data, size].map((part) => window.JSON.parse(JSON.stringify(part)));
      await window.Plotly.newPlot(div, traces, full, { staticPlot: true });
      const url: string = await window.Plotly.toImage(div, { format: "svg", width, height });
      window.Plotly.purge(div);
      div.remove();
      return decodeURIComponent(url.slice(url.indexOf(",") + 1));
    },
    paint: (svg, scale) =>
      new Renderer(plain(svg), { font, background: "#ffffff", fitTo: { mode: "zoom", value: scale } })
        .render().asPng(),
  };
}

/** resvg wants references without quotes. */
const plain = (svg: string) => svg.replace(/url\((?:'|"|&quot;|&#39;)(#[^'"&)]+)(?:'|"|&quot;|&#39;)\)/g, "url($1)");

/** Open Sans out of the bundle, so that a figure looks the same everywhere; without the bundle, the system's fonts. */
async function fontOptions(): Promise<object> {
  const root = await withBundle("fonts", ({ folder }) => folder);
  if (!root) return { loadSystemFonts: true };
  const folder = join(root, "fonts", "Open_Sans");
  const fontFiles = ["Regular", "Bold", "Italic"].map((face) => join(folder, `OpenSans-${face}.ttf`));
  return { loadSystemFonts: false, fontFiles, defaultFontFamily: "Open Sans", sansSerifFamily: "Open Sans" };
}

/** Width of one line of text in pixels. */
type Ruler = (text: string, size: number, bold: boolean) => number;

function createRuler(measure: (svg: string) => { width: number } | undefined): Ruler {
  const known = new Map<string, number>();
  return (text, size, bold) => {
    const key = `${bold}${text}`;
    let width = known.get(key);
    if (width === undefined) {
      // Blanks at the ends count, but are not painted.
      const blanks = text.length - text.trim().length;
      const escaped = text.trim().replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
      const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="9999" height="200"><text y="100" font-size="100" ` +
        `${bold ? 'font-weight="bold"' : ""}>${escaped}</text></svg>`;
      width = (escaped ? measure(svg)?.width ?? 0 : 0) / 100 + 0.26 * blanks;
      known.set(key, width);
    }
    return width * size;
  };
}

// deno-lint-ignore no-explicit-any -- jsdom comes without types
type Window = any;

/** Gives jsdom what plotly asks a browser for. */
function prepareWindow(window: Window, ruler: Ruler): void {
  window.URL.createObjectURL = () => "";
  window.HTMLCanvasElement.prototype.getContext = () => null;
  const sizeOf = (element: Window): number => {
    for (let at = element; at?.getAttribute; at = at.parentNode) {
      const size = parseFloat(at.style?.fontSize || at.getAttribute("font-size"));
      if (size > 0) return size;
    }
    return 12;
  };
  const isBold = (element: Window) => /bold|[6-9]00/.test(element.style?.fontWeight ?? "");
  const box = (element: Window): Box => {
    if (element.tagName !== "text") {
      return unite(
        [...element.children].map((child: Window) => transformed(box(child), child.getAttribute("transform"))),
      );
    }
    const size = sizeOf(element);
    const lines = [...element.querySelectorAll("tspan.line")];
    const texts: string[] = (lines.length > 0 ? lines : [element]).map((line: Window) => line.textContent);
    const width = Math.max(0, ...texts.map((text) => ruler(text, size, isBold(element))));
    const height = texts.some((text) => text.trim()) ? size * (1.36 + 1.3 * (texts.length - 1)) : 0;
    const anchor = element.getAttribute("text-anchor") ?? element.style.textAnchor;
    const x = Number(element.getAttribute("x") ?? 0) - (anchor === "middle" ? width / 2 : anchor === "end" ? width : 0);
    return { x, y: Number(element.getAttribute("y") ?? 0) - 1.07 * size, width, height };
  };
  const rectangle = (element: Window) => {
    const { x, y, width, height } = box(element);
    return { x, y, width, height, left: x, top: y, right: x + width, bottom: y + height };
  };
  window.SVGElement.prototype.getBBox = function () {
    return rectangle(this);
  };
  window.SVGElement.prototype.getBoundingClientRect = function () {
    return rectangle(this);
  };
  window.SVGElement.prototype.getComputedTextLength = function () {
    return box(this).width;
  };
}

/** The box around a moved and turned box; plotly uses no other transforms on texts. */
function transformed(box: Box, transform: string | null): Box {
  let corners = [[box.x, box.y], [box.x + box.width, box.y], [box.x, box.y + box.height], [
    box.x + box.width,
    box.y + box.height,
  ]];
  // The last one is applied first.
  for (const [, name, list] of [...(transform ?? "").matchAll(/(translate|rotate)\(([^)]*)\)/g)].reverse()) {
    const [a, b = 0, c = 0] = list.split(/[\s,]+/).map(Number);
    const [cos, sin] = [Math.cos(a * Math.PI / 180), Math.sin(a * Math.PI / 180)];
    corners = corners.map(([x, y]) =>
      name === "translate" ? [x + a, y + b] : [b + cos * (x - b) - sin * (y - c), c + sin * (x - b) + cos * (y - c)]
    );
  }
  const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return { x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y };
}

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

function unite(boxes: readonly Box[]): Box {
  const full = boxes.filter(({ width, height }) => width > 0 || height > 0);
  if (full.length === 0) return { x: 0, y: 0, width: 0, height: 0 };
  const x = Math.min(...full.map((box) => box.x));
  const y = Math.min(...full.map((box) => box.y));
  const right = Math.max(...full.map((box) => box.x + box.width));
  const bottom = Math.max(...full.map((box) => box.y + box.height));
  return { x, y, width: right - x, height: bottom - y };
}
