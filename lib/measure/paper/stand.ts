/** Devices and the one pipeline on them, for measurements of several models in turn. */
import type { DeviceSet } from "../../gpu/devices.ts";
import type { Pipeline } from "../../runtime/pipeline.ts";
import { isOfDevice } from "../throughput.ts";

/** Devices, and a pipeline that is made when it is asked for. */
export interface Stand {
  /** The devices; after an error of theirs they are others. */
  readonly set: DeviceSet;
  /** The pipeline of a model: the one there is if it is of that model, else the one that `make` makes in its place. */
  pipeline(model: string, make: (set: DeviceSet) => Pipeline): Pipeline;
  /** Runs something; after an error of a device, which may be lost, there are new devices, and the error is thrown on. */
  guarded<T>(run: () => Promise<T>): Promise<T>;
  /** Gives everything back. */
  close(): void;
}

/** A stand of devices that `open` opens. */
export async function createStand(open: () => Promise<DeviceSet>): Promise<Stand> {
  let set = await open();
  let held: { model: string; pipeline: Pipeline } | undefined;
  const drop = () => {
    if (!held) return;
    held.pipeline.close();
    held = undefined;
    set.devices.forEach(({ pool }) => pool.trim());
  };
  return {
    get set() {
      return set;
    },
    pipeline(model, make) {
      if (held?.model === model) return held.pipeline;
      drop();
      held = { model, pipeline: make(set) };
      return held.pipeline;
    },
    async guarded(run) {
      try {
        return await run();
      } catch (error) {
        if (isOfDevice(error)) {
          held = undefined;
          set.close();
          set = await open();
        }
        throw error;
      }
    },
    close() {
      drop();
      set.close();
    },
  };
}
