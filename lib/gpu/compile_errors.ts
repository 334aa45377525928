/** What Dawn says of WGSL that does not compile, as one line. */
import type { Kernel } from "./kernel.ts";

/**
 * `message` in short, if it is about a text of WGSL: where the mistake is in what somebody wrote, what is wrong, and the line.
 * `kernelOf` gives the kernel by the label of its module. Any other message stays as it is.
 */
export function withSourceLine(message: string, kernelOf: (label: string) => Kernel | undefined): string {
  const [, line, wrong, code] = /Error while parsing WGSL: :(\d+):\d+ error: (.*)\n(.*)/.exec(message) ?? [];
  const [, label] = /\[ShaderModuleDescriptor "+(.*?)"+\]\)/.exec(message) ?? [];
  const origin = label !== undefined && kernelOf(label)?.originOf(Number(line));
  return origin ? `${origin}: ${wrong}: ${code.trim()}` : message;
}
