/** The machine and software that a figure was measured with. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Implementation } from "../gpu/implementation.ts";
import { type Noise, noiseText } from "./noise.ts";

/** What a result names beside its numbers. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly platform: string;
  readonly runtime: string;
  /** Version of this package. */
  readonly twobp: string;
  /** Of the sources, "abc1234" or "abc1234 with changes"; absent outside of a checkout, as in an installed package. */
  readonly commit?: string;
  /** Version of the npm package that computes, or "none" where it is not installed; "of Deno" where Deno's own WebGPU is asked for. */
  readonly webgpu: string;
  /** ISO 8601, UTC. */
  readonly date: string;
  /** How quiet it was before the run, where `--quiet-check` asked. */
  readonly noise?: Noise;
}

/** This machine, now. */
export function describeMachine(): Machine {
  const { deno, bun, node } = process.versions as Record<string, string | undefined>;
  const processors = cpus();
  const { folder, version } = packageOf(dirname(fileURLToPath(import.meta.url)));
  const commit = commitOf(folder);
  return {
    processor: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    platform: `${process.platform} ${process.arch}`,
    runtime: deno ? `Deno ${deno}` : bun ? `Bun ${bun}` : `Node ${node}`,
    twobp: version,
    ...(commit ? { commit } : {}),
    webgpu: process.env.TWOBP_WEBGPU === "deno" ? "of Deno" : webGpuVersion("dawn"),
    date: new Date().toISOString(),
  };
}

/** One line of it: "twobp 0.1.0, commit abc1234; Deno 2.9.6, webgpu 0.6.2; Ryzen 7, 16 cores, linux x64; 2026-11-27". */
export function machineText(
  { processor, cores, platform, runtime, twobp, commit, webgpu, date, noise }: Machine,
): string {
  const source = `twobp ${twobp}${commit ? `, commit ${commit}` : ""}`;
  return `${source}; ${runtime}, webgpu ${webgpu}; ${processor}, ${cores} cores, ${platform}; ${date}${
    noise ? `; ${noiseText(noise)}` : ""
  }`;
}

/** The folder of the package that a folder belongs to, sources or built. */
function packageOf(folder: string): { folder: string; version: string } {
  const path = join(folder, "package.json");
  if (!existsSync(path)) return packageOf(dirname(folder));
  return { folder, version: JSON.parse(readFileSync(path, "utf8")).version };
}

/**
 * The commit that is checked out in `folder`, and whether what git knows of differs from it; undefined where there is no
 * git or the folder is not the top of a checkout: a package that lies in another project's is not of its commit.
 */
export function commitOf(folder: string): string | undefined {
  const git = (...args: string[]) =>
    execFileSync("git", ["-C", folder, ...args], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    if (git("rev-parse", "--show-prefix") !== "") return undefined;
    const commit = git("rev-parse", "--short", "HEAD");
    return git("status", "--porcelain", "--untracked-files=no") === "" ? commit : `${commit} with changes`;
  } catch {
    return undefined;
  }
}

/** The version of what computes: of the npm package, or of the runtime that it is part of; "none" where it is not there. */
export function webGpuVersion(implementation: Implementation): string {
  if (implementation === "deno") return process.versions.deno ?? "none";
  try {
    return createRequire(import.meta.url)("webgpu/package.json").version;
  } catch {
    return "none";
  }
}
