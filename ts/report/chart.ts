/** A table that says in numbers what a chart shows. */
export interface Table {
  head: readonly string[];
  rows: readonly (readonly (string | number)[])[];
}

/** A picture of a report, with the widths it is drawn for. */
export interface Chart {
  /** Its name in the page and of its file. */
  id: string;
  title: string;
  /** A sentence or two on what the chart shows and how to read it. */
  about: string;
  /** Drawn for wide and for narrow pages; the same picture where it has no text. */
  wide: string;
  narrow: string;
  table: Table;
  /** Goes over both columns of the page. */
  broad?: boolean;
  /** The slider that the picture's frames follow, `layer` or `size`; frames have `data-frame`. */
  follows?: string;
  /** Under the picture, one per frame. */
  captions?: readonly { frame: string; text: string }[];
}

/** A chart as a file of its own. */
export interface ChartFile {
  /** The name of the file. */
  name: string;
  /** Its content. */
  svg: string;
}

/** A report: the page, and its charts as files. */
export interface Report {
  /** The page, complete in itself. */
  html: string;
  /** Its charts, one by one. */
  charts: ChartFile[];
}

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Text without what XML does not allow, control characters above all: one of a file's name would make a picture unreadable. */
export function xmlText(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is replaced
  return text.toWellFormed().replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]/g, "\ufffd");
}

/** Text for HTML and SVG, in attributes too. */
export function escapeText(text: string): string {
  return xmlText(text).replace(/[&<>"']/g, (character) => entities[character] ?? character);
}
