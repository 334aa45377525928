/** The MPI that `deno task mpi:install` has put into this user's cache. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "../../../gpu/cache_folder.ts";

/** The folder of it in a cache folder. */
export const mpiFolder = (cache: string) => join(cache, "mpi");

/** Its libraries, as far as they are there. */
export function installedMpi(): string[] {
  const cache = cacheFolder();
  if (cache === undefined) return [];
  const path = join(mpiFolder(cache), "lib", "libmpi_abi.so.1");
  return existsSync(path) ? [path] : [];
}
