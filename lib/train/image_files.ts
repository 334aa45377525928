/** Reads PNG and JPEG files. */
import { readFileSync } from "node:fs";
import { convertIndexedToRgb, decode as decodePng } from "fast-png";
import jpeg from "jpeg-js";
import { UserError } from "../errors.ts";
import type { Image } from "./images.ts";

/**
 * The image in a file.
 *
 * @throws {UserError} When it can be read as neither PNG nor JPEG.
 */
export function readImage(path: string): Image {
  try {
    const bytes = new Uint8Array(readFileSync(path));
    return bytes[0] === 0xff ? fromJpeg(bytes) : fromPng(bytes);
  } catch (error) {
    const reason = error instanceof Error ? error.message.trim().replace(/\s+/g, " ") : String(error);
    throw new UserError(`${path} cannot be read as a PNG or JPEG image: ${reason}`);
  }
}

function fromJpeg(bytes: Uint8Array): Image {
  const { width, height, data } = jpeg.decode(bytes, { useTArray: true, formatAsRGBA: false });
  return { width, height, rgb: Float32Array.from(data, (value) => value / 255) };
}

/** Grey, coloured or indexed, 1 to 16 bits; transparency is left out. */
function fromPng(bytes: Uint8Array): Image {
  const png = decodePng(bytes);
  const { width, height } = png;
  const data = png.palette ? convertIndexedToRgb(png) : png.data;
  const channels = data.length / (width * height);
  const most = png.palette ? 255 : 2 ** png.depth - 1;
  const rgb = new Float32Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let colour = 0; colour < 3; colour++) {
      rgb[pixel * 3 + colour] = data[pixel * channels + (channels < 3 ? 0 : colour)] / most;
    }
  }
  return { width, height, rgb };
}
