/** Numbers of bytes, as people write them. */

/** Three digits and a unit: "24.0 GiB", "7.62 MiB". */
export function formatBytes(bytes: number): string {
  const power = Math.min(3, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  const value = bytes / 1024 ** power;
  return `${value >= 1000 ? value.toFixed(0) : value.toPrecision(3)} ${["B", "KiB", "MiB", "GiB"][power]}`;
}
