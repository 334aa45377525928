/** The MPI library, loaded into this process: the calls that are needed here, by the same types whatever its interface. */
import { createRequire } from "node:module";
import process from "node:process";
import { UserError } from "../../../errors.ts";
import { setVariable } from "../../../gpu/environment.ts";
import { optional } from "../../../optional.ts";
import { firstLine } from "../../../text.ts";
import { type Abi, abis, type Kind, kindOf, statusBytes } from "./abi.ts";
import type { Launcher } from "./launcher.ts";

/** Memory that a call reads or writes: it stays in use until the request that the call has begun is complete. */
export type Memory = Uint8Array;

/** A request under way, as its library has it. */
export type RequestHandle = number | bigint;

/** A message that has come, or is there to be received. */
export interface Arrived {
  readonly source: number;
  readonly bytes: number;
}

/** A loaded library. Each call throws an `MpiError` where MPI reports one. */
export interface Mpi {
  /** Its interface. */
  readonly abi: Abi;
  /** Its name and version, in one line. */
  readonly version: string;
  /** The file, or the name under which the system's loader found it. */
  readonly path: string;
  readonly kind: Kind | undefined;
  /** Joins the job; once in the life of a process. */
  init(): { readonly rank: number; readonly size: number };
  send(memory: Memory, to: number, tag: number): RequestHandle;
  receive(memory: Memory, from: number, tag: number): RequestHandle;
  /** Of these requests those that have ended, by their index, with the bytes that came; all go on meanwhile. */
  testSome(requests: readonly RequestHandle[]): readonly { readonly index: number; readonly bytes: number }[];
  /** Takes a receive back, and says whether that was in time: else it has ended. */
  cancel(request: RequestHandle): boolean;
  /** The next message with this tag that nobody receives yet. */
  probe(tag: number): Arrived | undefined;
  /** Receives a message that is there. */
  take(memory: Memory, from: number, tag: number): void;
  /** Ends this process's part; waits for the others to do so. */
  finalize(): void;
  /** Ends the job at once. */
  abort(code: number): void;
}

/** What MPI holds against a call. */
export class MpiError extends Error {
  override name = "MpiError";
}

interface Koffi {
  load(path: string): Library;
  address(pointer: unknown): bigint;
}
interface Library {
  func(name: string, result: string, parameters: readonly string[]): (...values: unknown[]) => number;
  symbol(name: string, type: string): unknown;
}

/** More bytes than one message can have: MPI counts them in an `int`. */
const mostBytes = 2 ** 31 - 1;
/** Texts that MPI writes are no longer, with their zero byte. */
const longestText = 8192;

/**
 * Loads the library that fits the launcher: the one at `path`, or the first that the system's loader finds, and after those the
 * ones of `more`.
 *
 * @throws {UserError} Where there is none, or one of another MPI than the launcher's: its processes would each be alone.
 */
export async function loadMpi(launcher: Launcher, path: string | undefined, more: readonly string[]): Promise<Mpi> {
  const koffi = await optional<Koffi>(
    "koffi",
    "MPI is called through",
    () => createRequire(import.meta.url)("koffi") as Koffi,
  );
  leaveRuntimeAlone();
  const { kind } = launcher, failures: string[] = [];
  const fitting = abis.filter(({ kinds }) => !kind || kinds.includes(kind));
  const candidates = path === undefined
    ? [
      ...fitting.flatMap((abi) => abi.libraries.map((name) => ({ abi, name }))),
      ...more.map((name) => ({ abi: abis[0], name })),
    ]
    : abis.map((abi) => ({ abi, name: path }));
  for (const { abi, name } of candidates) {
    let library: Mpi;
    try {
      library = bind(koffi, abi, name);
    } catch (error) {
      failures.push(`${name}: ${firstLine(error)}`);
      continue;
    }
    // Of a path that was given, only the library itself knows its interface.
    if (path !== undefined && !agrees(library)) continue;
    if (!kind || !library.kind || library.kind === kind) return library;
    if (path !== undefined) {
      throw new UserError(
        `MPI: this process was started by ${launcher.name}, and TWOBP_MPI, ${path}, is ${library.version}: processes of it would ` +
          `each be alone. Start them with ${library.kind}'s own mpiexec, or unset TWOBP_MPI`,
      );
    }
  }
  if (path !== undefined) throw new UserError(`MPI: TWOBP_MPI, ${path}, is no MPI library: ${failures.join("; ")}`);
  const foreign = kind === undefined ? undefined : installed(koffi);
  throw new UserError(
    foreign
      ? `MPI: this process was started by ${launcher.name}, and the only MPI library found is ${foreign.version}: install the ` +
        `library of the launcher's MPI, or start the job with ${foreign.kind ?? "that library"}'s own mpiexec`
      : `MPI: this process was started by ${launcher.name}, and no MPI library is found (looked for ${
        candidates.map(({ name }) => name).join(", ")
      }): install ${
        kind === "MPICH" ? "libmpich12, or run deno task mpi:install" : "libopenmpi3"
      }, or set TWOBP_MPI to its path`,
  );
}

/**
 * UCX, which carries the messages of most MPICH, is kept from two things that break a runtime with threads, unless the environment
 * says otherwise: to find out whether its hooks for memory work it moves the end of the heap up and down while other threads
 * allocate there, and it takes the signal by which V8 notices a WebAssembly access out of bounds.
 */
function leaveRuntimeAlone(): void {
  for (const [name, value] of [["UCX_MEM_EVENTS", "no"], ["UCX_ERROR_SIGNALS", ""]]) {
    if (process.env[name] === undefined) setVariable(name, value);
  }
}

/** Name and version of what a library says of itself, which may be pages. */
function shortVersion(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  const [, name, number] = /^(.*?)(?: Library)?(?: Version)?:? v?(\d[\w.]*)/i.exec(line) ?? [];
  return name === undefined ? line.slice(0, 80) : `${name} ${number}`;
}

/** Whichever MPI library there is. */
function installed(koffi: Koffi): Mpi | undefined {
  for (const abi of abis) {
    for (const name of abi.libraries) {
      try {
        return bind(koffi, abi, name);
      } catch {
        // The next one, then.
      }
    }
  }
  return undefined;
}

/** Whether a library is of the interface that it was bound by: what a wrong one is asked does no harm, but means nothing. */
function agrees({ abi, kind, path }: Mpi): boolean {
  if (abi === abis[0]) return /mpi_abi/.test(path);
  return kind !== undefined && abi.kinds.includes(kind) && !/mpi_abi/.test(path);
}

function bind(koffi: Koffi, abi: Abi, path: string): Mpi {
  const library = koffi.load(path);
  const { handle } = abi;
  const find = (name: string, ...parameters: string[]) => library.func(name, "int", parameters);
  const addressed = (value: number | string) =>
    typeof value === "number" ? value : koffi.address(library.symbol(value, "char"));
  const calls = {
    version: find("MPI_Get_library_version", "void *", "void *"),
    init: find("MPI_Init_thread", "intptr_t", "intptr_t", "int", "void *"),
    errhandler: find("MPI_Comm_set_errhandler", handle, handle),
    rank: find("MPI_Comm_rank", handle, "void *"),
    size: find("MPI_Comm_size", handle, "void *"),
    isend: find("MPI_Isend", "void *", "int", handle, "int", "int", handle, "void *"),
    irecv: find("MPI_Irecv", "void *", "int", handle, "int", "int", handle, "void *"),
    recv: find("MPI_Recv", "void *", "int", handle, "int", "int", handle, "void *"),
    testsome: find("MPI_Testsome", "int", "void *", "void *", "void *", "void *"),
    iprobe: find("MPI_Iprobe", "int", "int", handle, "void *", "void *"),
    count: find("MPI_Get_count", "void *", handle, "void *"),
    cancel: find("MPI_Cancel", "void *"),
    wait: find("MPI_Wait", "void *", "void *"),
    cancelled: find("MPI_Test_cancelled", "void *", "void *"),
    error: find("MPI_Error_string", "int", "void *", "void *"),
    finalize: find("MPI_Finalize"),
    abort: find("MPI_Abort", handle, "int"),
  };
  const comm = addressed(abi.commWorld), byte = addressed(abi.byte), errors = addressed(abi.errorsReturn);
  const number = new Int32Array(1), text = new Uint8Array(longestText), status = new Uint8Array(statusBytes);
  const textOf = () => new TextDecoder().decode(text.subarray(0, number[0])).replace(/\0.*$/s, "");
  const expect = (call: string, code: number) => {
    if (code === 0) return;
    const said = calls.error(code, text, number) === 0 ? textOf() : `error ${code}`;
    throw new MpiError(`${call}: ${said}`);
  };
  expect("MPI_Get_library_version", calls.version(text, number)); // allowed before MPI_Init
  const version = shortVersion(textOf());
  const request = handle === "int" ? new Int32Array(1) : new BigInt64Array(1);
  const begun = (call: string, code: number): RequestHandle => {
    expect(call, code);
    return request[0];
  };
  const expectSize = ({ length }: Memory) => {
    if (length > mostBytes) {
      throw new MpiError(
        `a message of ${length} bytes is longer than MPI can count (${mostBytes}): take more, smaller micro-batches`,
      );
    }
  };
  let [handles, indices, statuses] = room(64);
  function room(count: number) {
    const all = handle === "int" ? new Int32Array(count) : new BigInt64Array(count);
    return [all, new Int32Array(count), new Uint8Array(count * statusBytes)] as const;
  }
  /** Bytes of a status as this library lays it out: they follow one another without a gap. */
  const stride = abi.handle === "int" ? 20 : abi === abis[0] ? 32 : 24;
  const bytesOf = (of: Uint8Array) => {
    expect("MPI_Get_count", calls.count(of, byte, number));
    return number[0];
  };
  return {
    abi,
    version,
    path,
    kind: kindOf(version),
    init() {
      expect("MPI_Init_thread", calls.init(0, 0, abi.funneled, number));
      expect("MPI_Comm_set_errhandler", calls.errhandler(comm, errors)); // the default ends the process
      expect("MPI_Comm_rank", calls.rank(comm, number));
      const [rank] = number;
      expect("MPI_Comm_size", calls.size(comm, number));
      return { rank, size: number[0] };
    },
    send(memory, to, tag) {
      expectSize(memory);
      return begun("MPI_Isend", calls.isend(memory, memory.length, byte, to, tag, comm, request));
    },
    receive(memory, from, tag) {
      expectSize(memory);
      return begun("MPI_Irecv", calls.irecv(memory, memory.length, byte, from, tag, comm, request));
    },
    testSome(requests) {
      if (requests.length > handles.length) [handles, indices, statuses] = room(2 * requests.length);
      for (const [at, each] of requests.entries()) handles[at] = each;
      expect("MPI_Testsome", calls.testsome(requests.length, handles, number, indices, statuses));
      const count = Math.max(0, number[0]); // MPI_UNDEFINED, which is negative, where there are no requests
      return Array.from(indices.subarray(0, count), (index, at) => ({
        index,
        bytes: bytesOf(statuses.subarray(at * stride)),
      }));
    },
    cancel(each) {
      request[0] = each;
      expect("MPI_Cancel", calls.cancel(request));
      expect("MPI_Wait", calls.wait(request, status)); // ends soon: what has been cancelled, or has come
      expect("MPI_Test_cancelled", calls.cancelled(status, number));
      return number[0] !== 0;
    },
    probe(tag) {
      expect("MPI_Iprobe", calls.iprobe(abi.anySource, tag, comm, number, status));
      if (number[0] === 0) return undefined;
      const source = new DataView(status.buffer).getInt32(abi.sourceAt, true);
      return { source, bytes: bytesOf(status) };
    },
    take(memory, from, tag) {
      expect("MPI_Recv", calls.recv(memory, memory.length, byte, from, tag, comm, status));
    },
    finalize: () => expect("MPI_Finalize", calls.finalize()),
    abort: (code) => void calls.abort(comm, code),
  };
}
