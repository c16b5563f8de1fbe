/** How one line or bar differs from the others: by colour, by mark and by dashes, so that colour alone never counts. */
export interface Look {
  color: string;
  symbol: "circle" | "square" | "triangle" | "diamond" | "star" | "cross" | "wye" | "times";
  /** `stroke-dasharray`. */
  dash: string;
}

// Okabe and Ito's colours (Color Universal Design, 2008) without yellow, which is too pale for lines; lighter ones in the dark.
const colors: readonly (readonly [light: string, dark: string])[] = [
  ["#0072b2", "#56b4e9"],
  ["#d55e00", "#f0803c"],
  ["#007a5a", "#2bc79c"],
  ["#aa4a86", "#e39ac6"],
  ["#996300", "#e6a93b"],
  ["#2480b5", "#8fd0f5"],
  ["#555555", "#b8b8b8"],
  ["#7a3b00", "#c98f5a"],
];
const symbols: readonly Look["symbol"][] = ["circle", "square", "triangle", "diamond", "star", "cross", "wye", "times"];
const dashes: readonly string[] = ["none", "7 3", "2 3", "9 3 2 3", "5 2", "1 4", "12 4", "3 1"];

/** The look of the line number `index`; looks repeat after eight, with other dashes. */
export function look(index: number): Look {
  const at = index % colors.length;
  const round = Math.floor(index / colors.length);
  return {
    color: `var(--series-${at})`,
    symbol: symbols[(at + round) % symbols.length] ?? "circle",
    dash: dashes[(at + 3 * round) % dashes.length] ?? "none",
  };
}

const base = {
  ink: ["#1b1f24", "#e8eaed"],
  muted: ["#57606a", "#a3abb5"],
  line: ["#d0d7de", "#3d444d"],
  page: ["#ffffff", "#15181c"],
  panel: ["#f6f8fa", "#1d2126"],
  accent: ["#0072b2", "#56b4e9"],
  heat: ["#d55e00", "#ff8a3d"],
} as const;

/** The custom properties of a scheme, for the pages and for pictures that stand alone. */
export function properties(scheme: "light" | "dark"): string {
  const at = scheme === "light" ? 0 : 1;
  const named = Object.entries(base).map(([name, pair]) => `--${name}:${pair[at]}`);
  return [...named, ...colors.map((pair, index) => `--series-${index}:${pair[at]}`)].join(";");
}
