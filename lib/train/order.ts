/** Orders that depend on a seed. */
import { generator } from "../random.ts";

/** The numbers from 0 to `count` - 1 in an order that `key` decides. */
export function permutation(count: number, key: string): Uint32Array<ArrayBuffer> {
  const random = generator(key);
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) { // Fisher and Yates
    const j = random.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
