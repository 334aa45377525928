/** The machine and software that a figure was measured with. */
import { cpus } from "node:os";
import { createRequire } from "node:module";
import process from "node:process";

/** What a result names beside its numbers. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly platform: string;
  readonly runtime: string;
  /** Versions of the npm packages that compute. */
  readonly webgpu: string;
  /** ISO 8601, UTC. */
  readonly date: string;
}

/** This machine, now. */
export function describeMachine(): Machine {
  const { deno, bun, node } = process.versions as Record<string, string | undefined>;
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    platform: `${process.platform} ${process.arch}`,
    runtime: deno ? `Deno ${deno}` : bun ? `Bun ${bun}` : `Node ${node}`,
    webgpu: createRequire(import.meta.url)("webgpu/package.json").version,
    date: new Date().toISOString(),
  };
}
