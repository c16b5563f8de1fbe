// Which weights are tried: the type of the file, and the format that they are held in.
import { load, type Model } from "../../ts/index.ts";
import { source } from "./goldens.ts";
import { type FileType, fileTypes } from "./safetensors.ts";

export const formats = ["f32", "f16", "q8_0", "q4_k"] as const;
export type Format = (typeof formats)[number];

export interface Cell {
  /** One of the converted files, or the GGUF file that they come from, whose values are those of the f32 file. */
  file: FileType | "gguf";
  /** `stored` is to say nothing: the blocks of the GGUF file as they lie. */
  weights: Format | "stored";
}

/** A cell of the twelve that the converted files have. */
export type DenseCell = Cell & { file: FileType; weights: Format };

/** All twelve of the converted files. */
export const allCells: readonly DenseCell[] = fileTypes.flatMap((file) =>
  formats.map((weights) => ({ file, weights })),
);

/** The file itself, and once converted as the others are, which is exact. */
export const ggufCells: readonly Cell[] = [
  { file: "gguf", weights: "stored" },
  { file: "gguf", weights: "f32" },
];

/** The quick tests, which CI runs, or all of them. */
export const quick: boolean = process.env.PREFIXKV_REAL_QUICK === "1";

export type Part = "perplexity" | "texts" | "chats" | "methods" | "behaviour" | "kvpress";

/** Exact numbers where numbers can be exact; each format and file type once; and an f32 file in a quantised format, which once was garbage. */
const quickCells: Record<Part, readonly Cell[]> = {
  perplexity: [
    { file: "f16", weights: "f16" },
    { file: "f32", weights: "q8_0" },
    { file: "bf16", weights: "q4_k" },
    { file: "gguf", weights: "stored" },
  ],
  texts: [{ file: "f32", weights: "f32" }, { file: "f32", weights: "q8_0" }, ...ggufCells],
  chats: [
    { file: "f32", weights: "f32" },
    { file: "gguf", weights: "stored" },
  ],
  methods: [{ file: "f32", weights: "f32" }],
  behaviour: [
    { file: "f16", weights: "f16" },
    { file: "gguf", weights: "stored" },
  ],
  kvpress: [{ file: "f32", weights: "f32" }],
};

/** The cells that a part tries. */
export function cellsOf(part: Part): readonly Cell[] {
  // Other formats move the scores, so that nothing exact is left to compare.
  if (quick || part === "kvpress") return quickCells[part];
  // The type of the file changes numbers, not behaviour.
  const cells = [...allCells, ...ggufCells];
  return part === "behaviour" ? cells.filter(({ file, weights }) => file === "f16" || weights === "stored") : cells;
}

export function named({ file, weights }: Cell): string {
  return `${file} file in ${weights}`;
}

/** One model at a time: f32 weights alone take half a gigabyte. */
export async function withModel<Result>(
  { file, weights }: Cell,
  use: (model: Model) => Promise<Result>,
  batch = 1,
): Promise<Result> {
  const model = await load(source(file), { ...(weights !== "stored" && { weights }), batch });
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}
