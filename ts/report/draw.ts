import type { Markish, PlotOptions } from "@observablehq/plot";
import { type Chart, escapeText, xmlText } from "./chart.ts";
import { properties } from "./palette.ts";

type PlotModule = typeof import("@observablehq/plot");

/** The drawing functions and colours that charts share. */
export interface Pen {
  plot: PlotModule;
  /** Draws at a width; `label` names the picture for those who cannot see it. */
  draw(label: string, about: string, options: PlotOptions): string;
  /** The picture with one of its frames. */
  only(svg: string, frame: string): string;
}

/** Loads the chart library; only reports need it. */
export async function pen(): Promise<Pen> {
  const [plot, { DOMImplementation, DOMParser, XMLSerializer }] = await Promise.all([
    import("@observablehq/plot"),
    import("@xmldom/xmldom"),
  ]);
  const document = new DOMImplementation().createDocument(null, "svg") as unknown as Document;
  const serializer = new XMLSerializer();
  return {
    plot,
    draw(label, about, options) {
      const figure = plot.plot({
        document,
        className: "plot",
        ...options,
      });
      return tidy(xmlText(serializer.serializeToString(figure as never)), label, about);
    },
    only(svg, frame) {
      const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
      for (const element of [...parsed.getElementsByTagName("*")]) {
        const own = element.getAttribute("data-frame");
        if (own !== null && own !== frame) element.parentNode?.removeChild(element);
      }
      return serializer.serializeToString(parsed);
    },
  };
}

/** The two sizes of a chart: for a column of a wide page, and for a telephone. */
export const sizes = {
  wide: { width: 540, height: 320 },
  narrow: { width: 350, height: 300 },
} as const;

export type Size = (typeof sizes)[keyof typeof sizes];

/** Draws a chart for both sizes. */
export function both(make: (size: Size) => string): Pick<Chart, "wide" | "narrow"> {
  return { wide: make(sizes.wide), narrow: make(sizes.narrow) };
}

/** Plot's SVG without its own style, with short numbers, a name, and frames where marks are described as `frame NAME`. */
function tidy(svg: string, label: string, about: string): string {
  const head = `role="img" aria-label="${escapeText(label)}"`;
  return svg
    .replace(/<style>.*?<\/style>/s, `<title>${escapeText(label)}</title><desc>${escapeText(about)}</desc>`)
    .replace(/^<svg class="plot"/, `<svg class="plot" ${head}`)
    .replace(' font-size="10"', ' font-size="12"')
    .replace(/aria-description="frame ([^"]+)"/g, 'data-frame="$1"')
    .replace(/(\d\.\d{2})\d+/g, "$1");
}

/** An SVG file that stands alone, in both colour schemes. */
export function standalone(svg: string): string {
  const style =
    `:root{color-scheme:light dark;${properties("light")}}` +
    `@media (prefers-color-scheme:dark){:root{${properties("dark")}}}` +
    "svg{background:var(--page);color:var(--ink)}text{white-space:pre}";
  const named = svg.includes("xmlns=") ? svg : svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"');
  return `${named.replace(/^<svg[^>]*>/, (open) => `${open}<style>${style}</style>`)}\n`;
}

/** A name with the colour and mark of its line. */
export interface Entry {
  name: string;
  color: string;
  symbol?: string;
}

const rowHeight = 18;

/** Names with their colours and marks in rows above the frame, and the margin that they need. */
export function legend({ plot }: Pen, entries: readonly Entry[], width: number): { marks: Markish[]; margin: number } {
  let x = 0;
  let row = 0;
  const places = entries.map((entry) => {
    // Twelve pixels of a sans-serif font: letters are about 6.6 wide.
    const needed = 30 + 6.6 * entry.name.length;
    if (x > 0 && x + needed > width) {
      x = 0;
      row += 1;
    }
    const place = { ...entry, x, row };
    x += needed;
    return place;
  });
  const above = (row + 1) * rowHeight;
  const marks = places.flatMap(({ name, color, symbol, x, row }): Markish[] => {
    const at = { frameAnchor: "top-left", facetAnchor: "top", dy: row * rowHeight - above } as const;
    return [
      plot.dot([0], { ...at, dx: x + 6, symbol: (symbol ?? "circle") as "circle", r: 4.5, fill: color }),
      plot.text([name], { ...at, dx: x + 16, textAnchor: "start", lineAnchor: "middle", fill: "var(--ink)" }),
    ];
  });
  // Above the names stands the label of the axis.
  return { marks, margin: above + 28 };
}
