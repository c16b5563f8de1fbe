const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Bytes for people: `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Reads `8GiB`, `512 MB` or a number of bytes, as the engine does; undefined for anything else. KB, MB, ... are powers of 1000. */
export function parseBytes(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?(b)?\s*$/i.exec(text);
  if (!match) return undefined;
  const [, number = "", prefix, binary] = match;
  const power = prefix === undefined ? 0 : "kmgt".indexOf(prefix.toLowerCase()) + 1;
  const bytes = Number(number) * (binary === undefined ? 1000 : 1024) ** power;
  return bytes < 2 ** 62 ? Math.floor(bytes) : undefined;
}

/** Milliseconds for people: `850 ms`, `2.31 s`. */
export function formatTime(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

/** A count with separators: `5 520 000` reads as 5,520,000. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Rows of a name and a value, the values in one column. */
export function formatTable(rows: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("");
}

const blocks = "▁▂▃▄▅▆▇█";

/** One block per share from 0 to 1. */
export function formatBars(shares: readonly number[]): string {
  return shares.map((share) => blocks[Math.max(1, Math.round(Math.min(1, share) * blocks.length)) - 1]).join("");
}

/** A share for people: `50.3 %`. */
export function formatShare(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** Rising numbers with their runs joined: `0-3 7 9-10`. */
export function formatRuns(numbers: readonly number[]): string {
  const runs: [first: number, last: number][] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run && run[1] === number - 1) run[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(" ");
}

/** Rows as columns, each as wide as its widest cell; a row may be short. */
export function formatColumns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  // A short row's last cell may stick out: it is a remark.
  const most = Math.max(...rows.map((row) => row.length));
  for (const row of rows.filter((row) => row.length === most))
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  for (const row of rows) {
    row.slice(0, -1).forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

/** A duration for people: `40 s`, `12 min`, `3 h 5 min`. */
export function formatDuration(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const names: Record<string, string> = { "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v", "\0": "\\0" };

/**
 * Text as people may read it in a terminal: control characters but line ends and tabs as `\\x1b`. A model, a server or the name of a file
 * could else set the title, the colours or the screen, or hide what was written before.
 */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is shown
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, (character) => {
    return names[character] ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

/** A value as JSON on one line; its strings are exact, but hold no control characters as they are. */
export function formatJson(value: unknown): string {
  // JSON itself escapes only those below a space.
  return JSON.stringify(value).replace(/[\x7f-\x9f]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
}
