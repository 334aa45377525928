/**
 * What an MPI library looks like from outside: MPI says what its calls mean, and until MPI 5 not what its handles and constants are.
 * There are three answers, told apart by the name of the library.
 */

/** Whose launcher started a process, or whose library it has loaded. */
export type Kind = "Open MPI" | "MPICH";

/** A handle or a constant: a number, or for Open MPI the name of the object whose address it is. */
type Handle = number | string;

/** One binary interface. */
export interface Abi {
  readonly name: string;
  /** The kinds of launcher that start libraries of this interface. */
  readonly kinds: readonly Kind[];
  /** Libraries to be tried, as the system's loader finds them. */
  readonly libraries: readonly string[];
  /** C's type of a handle. */
  readonly handle: "int" | "intptr_t";
  readonly commWorld: Handle;
  readonly byte: Handle;
  readonly errorsReturn: Handle;
  readonly anySource: number;
  /** What `MPI_Init_thread` is asked for: all calls come from one thread, others exist. */
  readonly funneled: number;
  /** Byte of a status at which its source stands. */
  readonly sourceAt: number;
}

/** Bytes of a status: that of the widest interface. */
export const statusBytes = 32;

/** All interfaces, in the order in which they are tried. */
export const abis: readonly Abi[] = [
  {
    name: "MPI 5's standard ABI", // MPICH 5, and Open MPI from 6
    kinds: ["MPICH", "Open MPI"],
    libraries: ["libmpi_abi.so.1", "libmpi_abi.so.0"],
    handle: "intptr_t",
    commWorld: 0x101,
    byte: 0x247,
    errorsReturn: 0x143,
    anySource: -1,
    funneled: 1024,
    sourceAt: 0,
  },
  {
    name: "Open MPI 4 and 5",
    kinds: ["Open MPI"],
    libraries: ["libmpi.so.40", "libmpi.40.dylib"],
    handle: "intptr_t",
    commWorld: "ompi_mpi_comm_world",
    byte: "ompi_mpi_byte",
    errorsReturn: "ompi_mpi_errors_return",
    anySource: -1,
    funneled: 1,
    sourceAt: 0,
  },
  {
    name: "MPICH 3 and 4, and those compatible with it",
    kinds: ["MPICH"],
    libraries: ["libmpich.so.12", "libmpi.so.12", "libmpi.12.dylib"],
    handle: "int",
    commWorld: 0x44000000,
    byte: 0x4c00010d,
    errorsReturn: 0x54000001,
    anySource: -2,
    funneled: 1,
    sourceAt: 8,
  },
];

/** Whose library it is, by what `MPI_Get_library_version` says; undefined for one that nobody here knows. */
export function kindOf(version: string): Kind | undefined {
  if (/open mpi/i.test(version)) return "Open MPI";
  if (/mpich|intel\(r\) mpi|mvapich|cray/i.test(version)) return "MPICH";
  return undefined;
}
