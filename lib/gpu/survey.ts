/** Which drivers there are, and why others are not. */
import { reasonOf } from "../errors.ts";
import { firstLine } from "../text.ts";
import { usedFeatures, usedLimits } from "./adapters.ts";
import { type Driver, listCards, remedies, tryDriver } from "./driver.ts";
import { Gpu } from "./gpu.ts";
import { loadWebGpu } from "./implementation.ts";

/** What was found of a driver. */
export interface FoundDriver {
  /** Which one. */
  readonly driver: Driver;
  /** What it offers; undefined where it gives no device. */
  readonly adapter?: FoundAdapter;
  /** Why it gives none. */
  readonly missing?: string;
  /** What to do for it, where it is not there. */
  readonly remedy?: string;
  /** What the driver and its loader wrote meanwhile, line by line. */
  readonly said: readonly string[];
}

/** What a driver offers. */
export interface FoundAdapter {
  /** Its own description, "llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)" or "NVIDIA H100". */
  readonly name: string;
  /** Short name of the maker. */
  readonly vendor: string;
  /** PCI addresses of the maker's GPUs on this machine; none for software, and where the system does not list them. */
  readonly cards: readonly string[];
  /** Those features of it that are used here. */
  readonly features: readonly string[];
  /** Lanes in a subgroup, the least and the most; 0 where there are none. */
  readonly subgroups: readonly [number, number];
  /** Those limits of it that are used here. */
  readonly limits: Readonly<Record<string, number>>;
}

/**
 * Tries a driver, and closes it again. A failure, whatever it is, is said and not thrown. Where the system has no Vulkan loader the
 * bundled driver brings one into the process, and others may be found by it that were not there before: it comes last.
 */
export async function lookAtDriver(driver: Driver): Promise<FoundDriver> {
  const said: string[] = [];
  const hear = (text: string) => {
    for (const line of text.split("\n").map((each) => firstLine(each.replace(/^Warning: /, "")))) {
      if (line && !/^at \w/.test(line) && !said.includes(line)) said.push(line); // without the places in Dawn's sources
    }
  };
  try {
    const opened = await tryDriver(await loadWebGpu(), driver, 0, undefined, hear);
    if (!("adapter" in opened)) return { driver, missing: opened.missing, remedy: remedies[driver], said };
    const { adapter: { info, features, limits } } = opened, gpu = new Gpu(opened), { name, vendor } = gpu.info;
    gpu.close();
    return {
      driver,
      adapter: {
        ...{ name, vendor },
        cards: info.isFallbackAdapter ? [] : listCards(vendor),
        features: usedFeatures.filter((each) => features.has(each)),
        subgroups: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
        limits: Object.fromEntries(usedLimits.map((name) => [name, limits[name] as number])),
      },
      said,
    };
  } catch (error) {
    return { driver, missing: firstLine(reasonOf(error)), said }; // whatever it is, it says itself what to do
  }
}
