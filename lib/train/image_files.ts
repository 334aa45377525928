/** Reads PNG and JPEG files. */
import { readFile, stat } from "node:fs/promises";
import { UserError } from "../errors.ts";
import { optional } from "../optional.ts";
import { firstLine, shown } from "../text.ts";
import type { Image } from "./images.ts";

/** The most pixels that an image may have. A file of a few bytes can claim any number, and each takes 12 bytes here. */
const mostPixels = 2 ** 26;

/**
 * The image in a file as it is meant to be looked at: turned by its EXIF orientation, its colours converted to sRGB where a
 * profile says what they are, transparency left out. Of 16 bits the upper 8 count, as in Pillow.
 *
 * @throws {UserError} When it cannot be read as PNG or JPEG, is damaged, or has more than 2^26 pixels; and where the package
 * sharp, which decodes, cannot be loaded.
 */
export async function readImage(path: string): Promise<Image> {
  const sharp = await loadSharp();
  try {
    if (!(await stat(path)).isFile()) throw new Error("it is not a file");
    const bytes = await readFile(path);
    if (!isPng(bytes) && !isJpeg(bytes)) throw new Error("it begins as neither does");
    // Damage that the decoder could paint over in grey is an error as well.
    const image = sharp(bytes, { failOn: "warning", limitInputPixels: false });
    const { width, height, space, hasProfile } = await image.metadata();
    if (width * height > mostPixels) {
      throw new Error(`it has ${width} x ${height} pixels, more than the ${mostPixels} that are read`);
    }
    // Inks without a profile are made colours as Pillow makes them; sharp would take the profile of some printing press.
    const inks = space === "cmyk" && !hasProfile;
    const decoded = inks
      ? image.pipelineColourspace("cmyk").toColourspace("cmyk")
      : image.removeAlpha().toColourspace("srgb");
    const { data, info } = await decoded.autoOrient().raw({ depth: "float" }).toBuffer({ resolveWithObject: true });
    const values = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    for (let i = 0; i < values.length; i++) values[i] /= 255;
    return { width: info.width, height: info.height, rgb: inks ? fromInks(values) : values };
  } catch (error) {
    throw new UserError(`${shown(path)} cannot be read as a PNG or JPEG image: ${firstLine(error)}`);
  }
}

const isPng = (bytes: Uint8Array) =>
  [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a].every((byte, i) => bytes[i] === byte);
const isJpeg = (bytes: Uint8Array) => [0xff, 0xd8, 0xff].every((byte, i) => bytes[i] === byte);

/** Cyan, magenta, yellow and black, from 0 to 1, each take light away from white. */
function fromInks(cmyk: Float32Array): Float32Array {
  return Float32Array.from({ length: cmyk.length / 4 * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3) * 4;
    return (1 - cmyk[pixel + i % 3]) * (1 - cmyk[pixel + 3]);
  });
}

/** Only whoever reads images needs the library, which is native code. */
async function loadSharp() {
  return (await optional("sharp", "Images are decoded by", () => import("sharp"))).default;
}
