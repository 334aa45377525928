/** The files of `kernels/` in a bundle: who bundles puts in their texts by name. */
declare const kernelTexts: Readonly<Record<string, string>>;

/** The text of a file, as of `kernel_files.ts`. */
export function kernelFile(name: string): string {
  if (!Object.hasOwn(kernelTexts, name)) throw new Error(`The bundle has no kernels/${name}.wgsl`);
  return kernelTexts[name];
}
