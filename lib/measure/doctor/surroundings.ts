/** What a machine has besides devices: runtimes, packages, memory, a cache, settings, cards on its bus. */
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { availableParallelism, freemem, loadavg, totalmem } from "node:os";
import process from "node:process";
import { inCache } from "../../gpu/cache_folder.ts";
import { pciVendors } from "../../gpu/adapters.ts";
import { listCards } from "../../gpu/driver.ts";
import { firstLine, shown } from "../../text.ts";
import type { FoundRuntime, Surroundings } from "./diagnosis.ts";

/** Packages that an installation may leave out, and what needs them. */
const packages = {
  webgpu: "devices",
  koffi: "settings of drivers under Node",
  "@sparticuz/chromium": "the bundled driver",
  "tar-fs": "unpacking the bundled driver",
  sharp: "images",
  "@huggingface/tokenizers": "tokenizers",
  hyparquet: "Parquet files",
  "plotly.js-dist-min": "figures",
  jsdom: "figures as files",
  "@resvg/resvg-js": "figures as PNG",
  pdfkit: "figures as PDF",
  arquero: "tables of notebooks",
} as const;

/** What decides which driver is loaded, and how it computes. */
const variables = [
  ...[
    "TWOBP_DRIVER",
    "TWOBP_WEBGPU",
    "DENO_WEBGPU_BACKEND",
    "VK_DRIVER_FILES",
    "VK_ADD_DRIVER_FILES",
    "VK_ICD_FILENAMES",
  ],
  ...["VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE", "MESA_VK_DEVICE_SELECT", "DRI_PRIME"],
  ...["LP_NUM_THREADS", "LP_NATIVE_VECTOR_WIDTH", "XDG_CACHE_HOME"],
];

/** Looks around. */
export async function lookAround(): Promise<Surroundings> {
  const set = variables.filter((name) => process.env[name]);
  const cards = Object.values(pciVendors).map((vendor) => [vendor, listCards(vendor)] as const);
  return {
    runtimes: ["Deno", "Node", "Bun"].map(findRuntime),
    missingPackages: Object.entries(packages).filter(([name]) => isNeeded(name) && !isThere(name)).map((
      [name, use],
    ) => ({ name, use })),
    environment: Object.fromEntries(set.map((name) => [name, shown(process.env[name]!)])),
    cores: availableParallelism(),
    load: loadavg()[0],
    memory: { total: totalmem(), free: freemem() },
    cache: await findCache(),
    cards: Object.fromEntries(cards.filter(([, addresses]) => addresses.length > 0)),
  };
}

function findRuntime(name: string): FoundRuntime {
  const { deno, bun, node } = process.versions as Record<string, string | undefined>;
  const running = deno ? "Deno" : bun ? "Bun" : "Node";
  if (name === running) return { name, version: deno ?? bun ?? node, here: true };
  try {
    const said = execFileSync(name.toLowerCase(), ["--version"], {
      encoding: "utf8",
      timeout: 5000,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const version = /\d+\.\d+\.\d+\S*/.exec(said)?.[0];
    return { name, ...version ? { version } : {}, here: false };
  } catch {
    return { name, here: false };
  }
}

/** Deno's own WebGPU stands in for the package. */
function isNeeded(name: string): boolean {
  return name !== "webgpu" || process.env.TWOBP_WEBGPU !== "deno";
}

function isThere(name: string): boolean {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch (error) {
    // A package that is there may have no entry for `require`.
    return (error as { code?: string }).code === "ERR_PACKAGE_PATH_NOT_EXPORTED";
  }
}

async function findCache(): Promise<Surroundings["cache"]> {
  try {
    return { folder: await inCache("what is kept between runs", (folder) => folder) };
  } catch (error) {
    return { problem: firstLine(error) };
  }
}
