/** How quiet a machine is before something is measured on it: what its cores do besides, and how much equal work spreads. */
import { kept, median, quartiles } from "./statistics.ts";

/** What a look at the machine found. */
export interface Noise {
  /** Whether other programs kept no more than a tenth of the cores busy, and the product's quartiles lie no further apart than 5 % of its median. */
  readonly quiet: boolean;
  /** Cores of the machine. */
  readonly cores: number;
  /** Cores that other programs kept busy for a second, 0.5 being half of one; absent where the runtime does not say. */
  readonly busyCores?: number;
  /** Times of one small product of matrices, again and again on the device, in milliseconds. */
  readonly productMs: { readonly median: number; readonly quartiles: readonly [number, number] };
}

/** What is looked at. Times are milliseconds. */
export interface NoiseReader {
  /** How long each core has been busy, since any moment; zeros where the runtime does not say. */
  busy(): readonly number[];
  /** How long this process has kept cores busy, all its threads together. */
  own(): number;
  /** The clock. */
  now(): number;
  /** Lets so much time pass. */
  wait(ms: number): Promise<void>;
  /** Does the same short work on the device so many times, and says what each took. */
  repeat(times: number): Promise<readonly number[]>;
}

const windowMs = 1000, repeats = 30;

/** Shares, of the cores and of a product's median time, above which a machine is not quiet. */
const most = { busy: 0.1, spread: 0.05 };

/** Looks at the cores for a second, then at the work. */
export async function measureNoise(reader: NoiseReader): Promise<Noise> {
  const look = () => {
    const each = reader.busy();
    return { cores: each.length, busy: each.reduce((sum, ms) => sum + ms, 0), own: reader.own(), now: reader.now() };
  };
  const before = look();
  await reader.wait(windowMs);
  const { cores, busy, own, now } = look();
  // Cores count in ticks, so that a little less than nothing may come out.
  const others = Math.max(0, busy - before.busy - (own - before.own)) / (now - before.now);
  const times = await reader.repeat(repeats);
  const [middle, low, high] = kept([median(times), ...quartiles(times)]);
  const found = {
    cores,
    ...(busy === 0 ? {} : { busyCores: Number(others.toFixed(3)) }),
    productMs: { median: middle, quartiles: [low, high] as const },
  };
  return { quiet: !isBusy(found) && !isSpread(found), ...found };
}

/** "quiet: 0.0 of 2 cores are busy with other programs, ...", or "not quiet: " and what is not. */
export function noiseText(noise: Noise): string {
  const { quiet, cores, busyCores } = noise;
  const busy = busyCores === undefined
    ? "how busy the cores are is not known here"
    : `${busyCores.toFixed(1)} of ${cores} cores are busy with other programs`;
  const spread =
    `the quartiles of ${repeats} equal products of matrices lie ${(100 * spreadOf(noise)).toFixed(1)} % of ` +
    "their median apart";
  if (quiet) return `quiet: ${busy}, ${spread}`;
  return `not quiet: ${[...(isBusy(noise) ? [busy] : []), ...(isSpread(noise) ? [spread] : [])].join(", ")}`;
}

type Found = Omit<Noise, "quiet">;

const spreadOf = ({ productMs: { median, quartiles: [low, high] } }: Found) => (high - low) / median;
const isBusy = ({ cores, busyCores = 0 }: Found) => busyCores > most.busy * cores;
const isSpread = (noise: Found) => spreadOf(noise) > most.spread;
