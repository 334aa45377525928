/**
 * Functions of the C library that JavaScript has no form of, where the runtime can call them: Deno, Bun and, through the
 * package koffi, Node; on Linux all of them, on macOS those that it has.
 */
import { createRequire } from "node:module";
import process from "node:process";

/** What each is given and returns; -1 is a failure. Texts end in a zero byte. */
const signatures = {
  setenv: { parameters: ["buffer", "buffer", "i32"], result: "i32" },
  unsetenv: { parameters: ["buffer"], result: "i32" },
  dup: { parameters: ["i32"], result: "i32" },
  dup2: { parameters: ["i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  read: { parameters: ["i32", "buffer", "usize"], result: "i64" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i64" },
} as const;

type Name = keyof typeof signatures;
type Call = (...values: (number | Uint8Array)[]) => number;

/** The C library's functions; one that the system does not have is missing. */
export type Libc = Partial<Readonly<Record<Name, Call>>>;

let loaded: Libc | undefined;

/** The C library as far as it can be called here; empty where it cannot. */
export function libc(): Libc {
  return loaded ??= Object.fromEntries(
    (Object.keys(signatures) as Name[]).flatMap((name) => {
      const call = load(name);
      return call ? [[name, call]] : [];
    }),
  );
}

/** A text as C has it. */
export function cText(text: string): Uint8Array {
  return new TextEncoder().encode(text + "\0");
}

const nodeTypes = { buffer: "void *", i32: "int", i64: "int64_t", u32: "uint32_t", usize: "size_t" } as const;

interface DenoFfi {
  readonly Deno?: {
    dlopen(path: string, symbols: object): { symbols: Record<string, (...values: unknown[]) => number | bigint> };
  };
}

function load(name: Name): Call | undefined {
  const library = process.platform === "darwin" ? "libSystem.dylib" : "libc.so.6";
  const { parameters, result } = signatures[name];
  const { Deno } = globalThis as DenoFfi;
  try {
    if (Deno) {
      const call = Deno.dlopen(library, { [name]: { parameters, result } }).symbols[name];
      return (...values) => Number(call(...values));
    }
    if (!process.versions.bun) {
      const call = createRequire(import.meta.url)("koffi").load(library).func(
        name,
        nodeTypes[result],
        parameters.map((
          type,
        ) => nodeTypes[type]),
      );
      return (...values) => Number(call(...values));
    }
    const { dlopen } = createRequire(import.meta.url)("bun:ffi");
    const args = parameters.map((type) => type === "buffer" ? "ptr" : type);
    const call = dlopen(library, { [name]: { args, returns: result } }).symbols[name];
    return (...values) => Number(call(...values));
  } catch {
    return undefined; // another C library, or no permission
  }
}
