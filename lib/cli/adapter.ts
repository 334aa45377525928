/** `--on`: the adapter that a command which runs nothing predicts for. */
import { type AdapterKind, adapterKinds } from "../gpu/kind.ts";
import type { MemoryOptions } from "../measure/memory.ts";
import { withDevices } from "./with_devices.ts";

/** What `--on` takes. */
export const adapterNames = [...adapterKinds, "here"] as const;

/** Lanes in subgroups, as the driver has them by default; of GPUs, whose makers differ, nothing is known. */
const lanes: Readonly<Record<AdapterKind, number>> = { gpu: 0, lavapipe: 8, swiftshader: 4 };

/** What a prediction is told of the adapter: `here` is the one that would be opened, and is, to ask it. */
export async function adapterOf(
  on: typeof adapterNames[number] = "gpu",
): Promise<Required<Pick<MemoryOptions, "kind" | "subgroupSize">>> {
  if (on !== "here") return { kind: on, subgroupSize: lanes[on] };
  return await withDevices(1, { alone: true, say: () => {} }, ({ devices: [{ gpu: { info } }] }) => {
    const { kind, subgroupSize } = info;
    return Promise.resolve({ kind, subgroupSize });
  });
}
