/** Entry point of `deno task mpi:install`. */
import { mpiInstallCommand } from "./mpi_install_command.ts";
import { main } from "./options.ts";

await main(mpiInstallCommand());
