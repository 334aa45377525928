/** What WebGPU says of a kernel that does not compile, or that is given the wrong buffers, as one line. */
import type { Kernel } from "./kernel.ts";

/**
 * `message` in short, if it is about a kernel; `kernelOf` gives that by the label of its module, pipeline and bind groups. Any
 * other message stays as it is.
 */
export function kernelError(message: string, kernelOf: (label: string) => Kernel | undefined): string {
  const naga = nagaError(message, kernelOf);
  if (naga) return naga;
  const [, descriptor, label] = /\[(ShaderModule|BindGroup)Descriptor "+(.*?)"+\]/.exec(message) ?? [];
  const kernel = descriptor && kernelOf(label);
  if (!kernel) return message;
  if (descriptor === "BindGroup") {
    const used = [...message.matchAll(/\{ binding: (\d+)/g)].map(([, binding]) => binding);
    return used.length === 0
      ? message
      : `${kernel.name} uses the bindings ${
        used.join(", ")
      }, and is given others: parameters are at 0, the buffers follow, ` +
        "and what an entry point declares and does not use is left out";
  }
  const [, line, wrong, code] = /Error while parsing WGSL: :(\d+):\d+ error: (.*)\n(.*)/.exec(message) ?? [];
  const origin = kernel.originOf(Number(line));
  return origin ? `${origin}: ${wrong}: ${code.trim()}` : message;
}

/** The same of the compiler of Deno's own WebGPU, which shows the line below its message and its label in front of the line's number. */
function nagaError(message: string, kernelOf: (label: string) => Kernel | undefined): string | undefined {
  const shown = /^\s*Shader(?: '(.*)')? (?:parsing|validation) error: (.*)\n\s*┌─ (.*):(\d+):\d+\n.*\n\d+ │(.*)/.exec(
    message,
  );
  if (!shown) return undefined;
  const [, label, said, place, line, code] = shown;
  const origin = kernelOf(label ?? place)?.originOf(Number(line));
  if (!origin) return undefined;
  // What is invalid about an entry point follows behind the line, what it is made of in between.
  const reason = message.trimEnd().split("\n").findLast((each) =>
    each.startsWith("  = ") && !/ is invalid$/.test(each)
  );
  return `${origin}: ${label === undefined && reason ? reason.slice("  = ".length) : said}: ${code.trim()}`;
}
