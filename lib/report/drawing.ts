/**
 * Figures as SVG without a browser: plotly draws into jsdom. jsdom knows no layout, so sizes of texts are measured by resvg,
 * which paints PNGs too: what plotly makes room for is what is painted.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { withBundle } from "../gpu/bundle.ts";
import { optional } from "../optional.ts";
import { hash } from "../random.ts";
import { plotlySource } from "./plotly.ts";
import { type Figure, houseLayout } from "./style.ts";

/** How to draw. */
export interface FigureOptions {
  /** Width of the drawing in pixels; default 920. Its height is the layout's, or 450. */
  width?: number;
  /** What the file says of itself where it is opened for its properties: how it came to be; default nothing. */
  about?: string;
}

/** A figure as SVG. */
export interface Drawing {
  readonly svg: string;
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
}

/** The part of resvg that is used here. */
export type Resvg = new (svg: string, options: object) => {
  getBBox(): { width: number } | undefined;
  render(): { asPng(): Uint8Array };
};

/** The faces of a font, as paths of files. */
export interface FontFiles {
  readonly regular: string;
  readonly bold: string;
  readonly italic: string;
}

/** What draws: made once in a process, since loading plotly takes a second. */
export interface Drawer {
  /** Draws a figure in the house style. */
  draw(figure: Figure, options: FigureOptions): Promise<Drawing>;
  readonly Renderer: Resvg;
  /** Open Sans, so that a figure looks the same everywhere; absent where the package that brings it is not installed. */
  readonly fonts?: FontFiles;
}

let made: Promise<Drawer> | undefined;

/**
 * What draws.
 *
 * @throws {UserError} Where a package that it needs is not installed.
 */
export function drawer(): Promise<Drawer> {
  return made ??= createDrawer();
}

async function createDrawer(): Promise<Drawer> {
  // Loaded here and not above: who draws nothing pays nothing for them.
  const require = createRequire(import.meta.url);
  const load = () => require("@resvg/resvg-js") as { Resvg: Resvg };
  const { Resvg: Renderer } = await optional("@resvg/resvg-js", "Figures are painted by", load);
  const { JSDOM } = await optional("jsdom", "Figures are drawn in", () => require("jsdom"));
  const fonts = await fontFiles();
  const font = fontOptions(fonts);
  const { window } = new JSDOM("<!DOCTYPE html><body></body>", { runScripts: "dangerously", pretendToBeVisual: true });
  prepareWindow(window, createRuler((svg) => new Renderer(svg, { font }).getBBox()));
  window.eval(plotlySource());
  return {
    Renderer,
    ...(fonts ? { fonts } : {}),
    async draw({ data, layout }, { width = 920 }) {
      const height = Number(layout?.height ?? 450);
      const div = window.document.createElement("div");
      window.document.body.append(div);
      const house = structuredClone(houseLayout(layout)) as { font: { family: string } };
      const family = `Open Sans, ${house.font.family}`; // what there is room for
      const size = { ...house, font: { ...house.font, family }, width, height, autosize: false };
      // As text, so that the arrays are those of jsdom's realm: plotly asks for their constructor.
      const [traces, full] = [data, size].map((part) => window.JSON.parse(JSON.stringify(part)));
      await window.Plotly.newPlot(div, traces, full, { staticPlot: true });
      const url: string = await window.Plotly.toImage(div, { format: "svg", width, height });
      window.Plotly.purge(div);
      div.remove();
      return { svg: plain(decodeURIComponent(url.slice(url.indexOf(",") + 1))), width, height };
    },
  };
}

/**
 * References without quotes, as painters want them, and in place of plotly's random names those of the drawing: the same
 * figure gives the same text, and two on one page stay apart. What clips a legend is wider than plotly makes it: a reader without
 * the font that was measured may have a wider one, which would lose the last letters.
 */
function plain(svg: string): string {
  const legend = /(<clipPath id="legend[^>]*><rect width=")([\d.]+)/;
  const wide = svg.replace(legend, (_, before: string, width: string) => before + Math.ceil(1.5 * Number(width)));
  const text = wide.replace(/url\((?:'|"|&quot;|&#39;)(#[^'"&)]+)(?:'|"|&quot;|&#39;)\)/g, "url($1)")
    .replace(/ trace[0-9a-f]{6}"/g, '"');
  const [, id] = /id="defs-([0-9a-f]+)"/.exec(text) ?? [];
  if (!id) return text;
  const own = hash(text.replaceAll(id, "")).toString(16).padStart(8, "0");
  return text.replaceAll(id, own);
}

/** How resvg finds fonts. */
export function fontOptions(fonts?: FontFiles): object {
  if (!fonts) return { loadSystemFonts: true };
  const family = "Open Sans";
  return {
    loadSystemFonts: false,
    fontFiles: Object.values(fonts),
    defaultFontFamily: family,
    sansSerifFamily: family,
  };
}

/** Open Sans out of the bundle. */
async function fontFiles(): Promise<FontFiles | undefined> {
  const root = await withBundle("fonts", ({ folder }) => folder);
  if (!root) return undefined;
  const file = (face: string) => join(root, "fonts", "Open_Sans", `OpenSans-${face}.ttf`);
  return { regular: file("Regular"), bold: file("Bold"), italic: file("Italic") };
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
