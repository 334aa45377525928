/** Parquet: each row of a file has a text in one of its columns. */
import { UserError } from "../errors.ts";
import { formatBytes } from "../bytes.ts";
import { optional } from "../optional.ts";
import { firstLine, quoted, shown } from "../text.ts";
import { type Block, changed, readStretch } from "./file_blocks.ts";
import { stat } from "node:fs/promises";

/** The most text that a row group may hold, since it is read whole. */
const mostBytes = 2 ** 30;

/**
 * The documents of a Parquet file: the text in `column` of each row. A block is a row group.
 *
 * @throws {UserError} When it cannot be read as Parquet, has no rows, or no such column of texts; where the packages hyparquet or
 * hyparquet-compressors cannot be loaded; and, when it is drawn, a row without a text and one that is not UTF-8.
 */
export async function parquetBlocks(path: string, column: string): Promise<Block[]> {
  const use = "Parquet files are read by";
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await optional(
    "hyparquet",
    use,
    () => import("hyparquet"),
  );
  const { compressors } = await optional("hyparquet-compressors", use, () => import("hyparquet-compressors"));
  const refused = (error: unknown) =>
    error instanceof UserError ? error : new UserError(`${shown(path)} cannot be read as Parquet: ${firstLine(error)}`);
  const size = await stat(path).catch((error) => {
    throw refused(error);
  });
  /** Rows are not read before they are drawn: what the system says of the file tells whether it is still the same. */
  const expectSame = async () => {
    const now = await stat(path).catch((error) => {
      throw refused(error);
    });
    if (now.size !== size.size || now.mtimeMs !== size.mtimeMs) throw changed(path);
  };
  const file = {
    byteLength: size.size,
    slice: async (start: number, end: number = size.size) => (await readStretch(path, start, end - start)).buffer,
  };
  if (file.byteLength === 0) throw new UserError(`${shown(path)} is empty`);
  const metadata = await parquetMetadataAsync(file).catch((error) => {
    throw refused(error);
  });
  const columns = parquetSchema(metadata).children;
  const found = columns.find(({ element }) => element.name === column);
  if (!found) {
    const names = columns.slice(0, 8).map(({ element }) => quoted(element.name)).join(", ");
    throw new UserError(
      `${shown(path)} has no column ${quoted(column)}; it has ${names}. The option \`field\` says where texts are`,
    );
  }
  const { converted_type, logical_type, type } = found.element;
  if (found.children.length > 0 || (converted_type !== "UTF8" && logical_type?.type !== "STRING")) {
    throw new UserError(
      `Column ${quoted(column)} of ${shown(path)} must hold texts, strings in UTF-8, not ${type ?? "several values"}`,
    );
  }
  const blocks: Block[] = [];
  let before = 0;
  for (const [group, { num_rows, columns }] of metadata.row_groups.entries()) {
    const first = before, rows = Number(num_rows);
    before += rows;
    if (rows === 0) continue;
    const own = columns.find(({ meta_data }) => meta_data?.path_in_schema.join(".") === column)?.meta_data;
    const bytes = Number(own?.total_uncompressed_size ?? 0);
    if (bytes > mostBytes) {
      throw new UserError(
        `Row group ${group} of ${shown(path)} holds ${formatBytes(bytes)} of ${quoted(column)} and is read whole: ` +
          `write it in row groups of less than ${formatBytes(mostBytes)}`,
      );
    }
    blocks.push({
      bytes,
      documents: rows,
      async read() {
        const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
        const values = await parquetReadObjects({
          ...{ file, metadata, compressors, columns: [column], rowStart: first, rowEnd: first + rows },
          parsers: { stringFromBytes: (bytes: Uint8Array | undefined) => bytes && decoded(decoder, bytes) },
        }).catch((error) => {
          throw refused(error);
        }).finally(expectSame); // and if it is not, that is why
        if (values.length !== rows) throw changed(path);
        const texts: unknown[] = values.map((row) => row[column]);
        return (document) => {
          const text = texts[document];
          if (typeof text === "string") return text;
          const place = `Row ${first + document + 1} of ${shown(path)}`;
          if (text === notUtf8) throw new UserError(`${place}: ${quoted(column)} is not UTF-8`);
          throw new UserError(`${place} has nothing in ${quoted(column)}`);
        };
      },
    });
  }
  if (blocks.length === 0) throw new UserError(`${shown(path)} has no rows`);
  return blocks;
}

/** Stands in a column for a text that is none. */
const notUtf8 = Symbol("not UTF-8");

function decoded(decoder: TextDecoder, bytes: Uint8Array): string | typeof notUtf8 {
  try {
    return decoder.decode(bytes);
  } catch {
    return notUtf8;
  }
}
