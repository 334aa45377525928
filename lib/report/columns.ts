/** What tables agree on, in the terminal and on pages. */

/** Whether a column holds nothing but numbers (percentages, error bars and missing ones included), and so stands on the right. */
export function isNumericColumn(rows: readonly (readonly (string | number)[])[], column: number): boolean {
  return rows.length > 0 && rows.every((row) => /^[-+]?[\d.,]+( ?%| \+- [\d.]+)?$|^-$/.test(String(row[column])));
}
