/** Reads a file of examples from disk. */
import { readFile, stat } from "node:fs/promises";
import { UserError } from "../errors.js";
import { readParquetRows } from "./parquet-node.js";
import { parseRows, type Row } from "./rows.js";

/**
 * The file is held whole, as text and as rows: some five times its size. A quarter of a gigabyte is a million examples,
 * a hundred times the sets that ReFT is trained on.
 */
export const MAX_ROW_BYTES: number = 2 ** 28;

/**
 * The rows of a file of examples.
 *
 * @throws UserError where the file is missing, too large, empty or broken, with the line
 */
export async function readRows(path: string): Promise<Row[]> {
  let bytes: Uint8Array;
  try {
    const { size } = await stat(path);
    if (size > MAX_ROW_BYTES) {
      throw new UserError(
        `${path} has ${size} bytes; files of examples are read up to ${MAX_ROW_BYTES}, since they are held in memory.`,
        "Split it, or take a sample: ReFT learns from tens to thousands of examples.",
      );
    }
    if (/\.parquet$/i.test(path)) return await readParquetRows(path, size);
    bytes = await readFile(path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    const what = code === "ENOENT" ? "does not exist" : code === "EISDIR" ? "is a folder" : `cannot be read (${code})`;
    throw new UserError(
      `${path} ${what}.`,
      "Give the path of a .jsonl, .json, .csv, .tsv or .parquet file of examples.",
      {
        cause: error,
      },
    );
  }
  return parseRows(bytes, path);
}
