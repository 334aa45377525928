/** `--on`: the kind of device that a command which runs nothing predicts for. */
import { type DeviceKind, deviceKinds } from "../gpu/kind.ts";
import type { MemoryOptions } from "../measure/memory.ts";
import { withDevices } from "./with_devices.ts";

/** What `--on` takes. */
export const onNames = [...deviceKinds, "here"] as const;

/** Lanes in subgroups, as the driver has them by default; of GPUs, whose makers differ, nothing is known. */
const lanes: Readonly<Record<DeviceKind, number>> = { gpu: 0, lavapipe: 8, swiftshader: 4 };

/** What a prediction is told of the devices: `here` are those that would be opened, of which one is, to ask it. */
export async function predictedFor(
  on: typeof onNames[number] = "gpu",
): Promise<Required<Pick<MemoryOptions, "kind" | "subgroupSize">>> {
  if (on !== "here") return { kind: on, subgroupSize: lanes[on] };
  return await withDevices(1, { alone: true, say: () => {} }, ({ devices: [{ gpu: { info } }] }) => {
    const { kind, subgroupSize } = info;
    return Promise.resolve({ kind, subgroupSize });
  });
}
