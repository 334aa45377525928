/**
 * Checkpoints in several safetensors files, with an index that says which tensor is in which. As in transformers, the index says which
 * files there are, and all that is in them counts.
 */
import { basename, dirname, join } from "node:path";
import { UserError } from "../errors.ts";
import { quoted } from "../text.ts";
import { readJson, statOf } from "./files.ts";
import { isObject } from "./json.ts";
import { openTensorFile, type TensorFile } from "./safetensors.ts";

/**
 * Opens a checkpoint: a `.safetensors` file, the `.safetensors.index.json` of several, or a folder with Hugging Face's names
 * for either.
 *
 * @throws {UserError} As {@link openTensorFile}; and where index and files disagree.
 */
export function openCheckpoint(path: string): TensorFile {
  if (statOf(path)?.isDirectory()) {
    const whole = join(path, "model.safetensors");
    const index = `${whole}.index.json`;
    if (statOf(whole)) return openTensorFile(whole);
    if (statOf(index)) return openShards(index);
    throw new UserError(`There is neither ${basename(whole)} nor ${basename(index)} in ${path}`);
  }
  return path.endsWith(".json") ? openShards(path) : openTensorFile(path);
}

function openShards(index: string): TensorFile {
  const listed = readIndex(index);
  const shards = new Map<string, TensorFile>();
  const close = () => shards.forEach((shard) => shard.close());
  try {
    const tensors = new Map<string, { dtype: string; shape: readonly number[] }>();
    const shardOf = new Map<string, string>();
    for (const shard of new Set(listed.values())) {
      const opened = openTensorFile(join(dirname(index), shard));
      shards.set(shard, opened);
      for (const [name, entry] of opened.tensors) {
        const right = listed.get(name) ?? shardOf.get(name) ?? shard;
        if (right !== shard) {
          const other = listed.has(name) ? `the index has it in ${right}` : `and in ${right} as well`;
          throw new UserError(`${index}: tensor ${quoted(name)} is in ${shard}, ${other}`);
        }
        tensors.set(name, entry);
        shardOf.set(name, shard);
      }
    }
    for (const [name, shard] of listed) {
      if (!tensors.has(name)) throw new UserError(`${index}: tensor ${quoted(name)} is not in ${shard}`);
    }
    return {
      tensors,
      metadata: new Map(),
      read(name) {
        const shard = shardOf.get(name);
        if (!shard) throw new UserError(`${index}: there is no tensor ${quoted(name)}`);
        return shards.get(shard)!.read(name);
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** The file of each tensor. */
function readIndex(path: string): Map<string, string> {
  const index = readJson(path, "the index");
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) throw new UserError(`${path}: the index has no weight_map`);
  for (const [name, shard] of Object.entries(map)) {
    // Shards lie beside their index; a path out of there is a mistake at best.
    if (typeof shard !== "string" || !/^[^/\\\p{C}]{1,200}\.safetensors$/u.test(shard)) {
      throw new UserError(`${path}: the index names no safetensors file beside it for tensor ${quoted(name)}`);
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}
