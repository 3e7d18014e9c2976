/** Makes lines of columns that end where those above them end. */
export function table(widths: number[]): (...values: (string | number)[]) => string {
  return (...values) => values.map((value, column) => String(value).padStart(widths[column] ?? 0)).join('');
}
