/** Whose WebGPU opens devices: Dawn, out of the npm package `webgpu`, or the one that Deno has itself (wgpu). */
import process from "node:process";
import { UserError } from "../errors.ts";
import { optional } from "../optional.ts";
import { described } from "../rules.ts";
import { takeInstance, type Taken } from "./instances.ts";
import { installPolling } from "./poll.ts";

/** Whose WebGPU it is. The environment variable `TWOBP_WEBGPU` set to one of these picks; `dawn` is the usual one. */
export type Implementation = "dawn" | "deno";
/** All of them, the usual one first. */
export const implementations: readonly Implementation[] = ["dawn", "deno"];

/** A WebGPU that can be asked for adapters. */
export interface WebGpu {
  /** Whose it is. */
  readonly implementation: Implementation;
  /**
   * An instance for the environment, and the working directory, as they will be during the call; `fresh` says that it has
   * not looked for adapters yet. Or why there is none that has the bundled driver, or another one.
   */
  take(
    variables: Readonly<Record<string, string | undefined>>,
    folder: string | undefined,
    within: <T>(call: () => T) => T,
  ): Taken | { readonly missing: string };
}

/** The implementation that the environment asks for. Throws a {@link UserError} on a value that is none. */
export function wantedImplementation(): Implementation {
  const value = process.env.TWOBP_WEBGPU || implementations[0];
  if ((implementations as readonly string[]).includes(value)) return value as Implementation;
  throw new UserError(`TWOBP_WEBGPU is ${described(value)}, but must be one of ${implementations.join(", ")}`);
}

/**
 * The WebGPU that the environment asks for, loaded once.
 *
 * @throws {UserError} Where it is asked for what is no implementation, or it is not there.
 */
export async function loadWebGpu(): Promise<WebGpu> {
  if (wantedImplementation() === "deno") return denoWebGpu();
  const dawn = await optional("webgpu", "Devices are opened through", () => import("webgpu"));
  installPolling();
  Object.assign(globalThis, dawn.globals);
  return { implementation: "dawn", take: (...how) => takeInstance(dawn, ...how) };
}

/** What Deno's instance was made for: it is made at the first request for an adapter, once in a process. */
let madeFor: string | undefined;

function denoWebGpu(): WebGpu {
  if (!process.versions.deno) {
    throw new UserError("TWOBP_WEBGPU is deno, but this is not Deno: unset it, or run the program with deno run");
  }
  const { gpu } = globalThis.navigator as Navigator & { readonly gpu?: GPU };
  if (!gpu) {
    throw new UserError(
      `TWOBP_WEBGPU is deno, but Deno ${process.versions.deno} has its WebGPU turned off: run it with ` +
        "--unstable-webgpu, or take Deno 2.9, which needs no flag",
    );
  }
  return {
    implementation: "deno",
    take(variables) {
      const wanted = variables.VK_DRIVER_FILES ?? "";
      const fresh = madeFor === undefined;
      madeFor ??= wanted;
      if (madeFor === wanted) return { instance: gpu, fresh };
      return { missing: "Deno's WebGPU looks for drivers once in a process, and has looked for others already" };
    },
  };
}
