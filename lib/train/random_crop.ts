/** Crops by chance. */
import type { Generator } from "../random.ts";
import { type Box, type Image, middle } from "./images.ts";

/** How often a crop is drawn that turns out wider or taller than its image. */
const tries = 10;

/**
 * A part of an image anywhere in it: a share of its area, uniform from `least` to 1, whose width over height is between 3/4 and 4/3,
 * uniform in its logarithm (Szegedy et al., arXiv 1409.4842, section 6; torchvision's `RandomResizedCrop`, but for its rounding to
 * whole pixels). Where ten tries do not fit into the image, the largest square in its middle.
 */
export function cropOf({ width, height }: Pick<Image, "width" | "height">, least: number, random: Generator): Box {
  for (let attempt = 0; attempt < tries; attempt++) {
    const area = width * height * (least + (1 - least) * random.uniform());
    const ratio = Math.exp((2 * random.uniform() - 1) * Math.log(4 / 3));
    const box = { width: Math.sqrt(area * ratio), height: Math.sqrt(area / ratio) };
    if (box.width > width || box.height > height) continue;
    const left = random.uniform() * (width - box.width), top = random.uniform() * (height - box.height);
    return { left, top, ...box };
  }
  return middle({ width, height });
}
