import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];
const GROUPED = new Intl.NumberFormat('en-US');
const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Coloured when the stream is a terminal that wants colours (NO_COLOR and TERM are heeded by `hasColors`). */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return stream.isTTY && stream.hasColors() ? styleText(style, text, { validateStream: false }) : text;
}

export function count(value: number): string {
  return GROUPED.format(value);
}

/** `1 page`, `2 pages`. */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** Three digits and a binary unit. */
export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  let scaled = value / 1024;
  let unit = 0;
  while (scaled >= 999.5 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${scaled < 9.995 ? scaled.toFixed(2) : scaled < 99.95 ? scaled.toFixed(1) : scaled.toFixed(0)} ${UNITS[unit]}`;
}

export function time(date: Date): string {
  return date
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, 'Z');
}

export function milliseconds(value: number): string {
  return value < 1000 ? `${value.toFixed(value < 10 ? 2 : 0)} ms` : `${(value / 1000).toFixed(2)} s`;
}

/** As JSON, with everything escaped that a terminal could take for a command. */
export function quoted(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

export interface Column {
  right?: boolean;
  style?: Style;
}

/** Rows with aligned columns; a column never gets narrower from one batch of rows to the next. */
export class Table {
  readonly #columns: readonly Column[];
  readonly #widths: number[];

  constructor(columns: readonly Column[]) {
    this.#columns = columns;
    this.#widths = columns.map(() => 0);
  }

  format(rows: readonly (readonly string[])[]): string {
    for (const row of rows) for (const [k, cell] of row.entries()) this.#widths[k] = Math.max(this.#widths[k]!, cell.length);
    return rows
      .map(
        (row) =>
          `${row
            .map((cell, k) => this.#cell(cell, k))
            .join('  ')
            .trimEnd()}\n`,
      )
      .join('');
  }

  #cell(cell: string, k: number): string {
    const { right, style } = this.#columns[k]!;
    const padded = right === true ? cell.padStart(this.#widths[k]!) : cell.padEnd(this.#widths[k]!);
    return style === undefined ? padded : paint(style, padded);
  }
}
