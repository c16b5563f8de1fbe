import { formatBytes, formatCount, formatTable } from "../../format.ts";
import type { ModelInfo } from "../../generated/wire.ts";
import { inspectModel } from "../../load.ts";
import type { Binding } from "../../native/pick.ts";
import type { InspectOptions } from "../../options/load.ts";
import { UsageError } from "../args.ts";
import { bindingFlag, type Command, hubFlags, withVision } from "../command.ts";
import { ProgressBar } from "../progress_bar.ts";

/** Describes a model and how much of it fits in memory. */
export const inspect: Command = {
  name: "inspect",
  summary: "show what a model holds and what fits in memory",
  positional: "MODEL",
  flags: [
    { name: "memory", type: "bytes", value: "SIZE", text: "also say what fits in this much memory, e.g. 8GiB" },
    {
      name: "picture",
      type: "string",
      value: "SIZE",
      text: "also count the positions of a picture of this size in pixels, e.g. 1920x1080",
    },
    ...hubFlags,
    bindingFlag,
  ],
  async run(values, context) {
    const { native } = await context.door(values.text("binding") as Binding | undefined);
    const bar = new ProgressBar(context);
    const options: InspectOptions = withVision(values.options(hubFlags.map((flag) => flag.name)));
    const picture = pictureSize(values.text("picture"));
    const info = await inspectModel(native, values.positionals[0], {
      ...options,
      ...(picture ? { picture } : {}),
      signal: context.signal,
      onProgress: bar.update,
    }).finally(() => bar.clear());
    const memory = values.number("memory");
    const fits = memory === undefined ? undefined : whatFits(info, memory);
    const more = [...(picture ? [pictureFact(info, picture)] : []), ...(fits ? fitFacts(fits) : [])];
    if (!values.has("json")) context.out(formatTable([...facts(info), ...more]));
    return { ...info, ...(fits ? { fits } : {}) };
  },
};

/** How much cache fits into a given memory beside the weights, uncompressed. */
export interface Fits {
  memory: number;
  /** Bytes left for the cache beside the weights; 0 when the weights do not fit. */
  cache: number;
  /** Positions over all sequences. */
  positions: number;
  /** Sequences of the model's full length. */
  sequences: number;
}

/** Computes what fits in a number of bytes. */
export function whatFits(
  info: Pick<ModelInfo, "weightBytes" | "kvBytesPerToken" | "maxPositions">,
  memory: number,
): Fits {
  const cache = Math.max(0, memory - info.weightBytes);
  const positions = Math.floor(cache / info.kvBytesPerToken);
  return { memory, cache, positions, sequences: Math.floor(positions / info.maxPositions) };
}

function facts(info: ModelInfo): [string, string][] {
  const { image } = info;
  return [
    ["architecture", info.architecture],
    ["parameters", formatCount(info.parameters)],
    ["weights", `${info.weights}, ${formatBytes(info.weightBytes)}`],
    [
      "layers",
      `${info.layers} of ${info.hiddenSize}, ${info.heads} heads x ${info.headDim}, ${info.kvHeads} for keys and values`,
    ],
    ["vocabulary", formatCount(info.vocabSize)],
    ["positions", formatCount(info.maxPositions)],
    ["images", image ? imageFacts(image) : "none"],
    [
      "kv cache",
      `${formatBytes(info.kvBytesPerToken)} per token, ${formatBytes(info.kvBytesPerToken * info.maxPositions)} in full`,
    ],
  ];
}

function imageFacts({ tokens, size, patch }: NonNullable<ModelInfo["image"]>): string {
  const each = tokens === null ? "tokens by size" : `${tokens} tokens each`;
  return `${each}, ${size === null ? "any size" : `${size} px`}, patches of ${patch} px`;
}

/** A size such as `1920x1080`. */
function pictureSize(text: string | undefined): { width: number; height: number } | undefined {
  if (text === undefined) return undefined;
  const [, width, height] = /^(\d{1,5})x(\d{1,5})$/.exec(text) ?? [];
  if (width === undefined || height === undefined)
    throw new UsageError(`--picture needs a size in pixels such as 1920x1080, not \`${text}\``);
  return { width: Number(width), height: Number(height) };
}

function pictureFact({ image }: ModelInfo, { width, height }: { width: number; height: number }): [string, string] {
  const name = `${width} x ${height}`;
  if (!image?.picture) return [name, "this model reads no images"];
  const { tokens, marks, pieces } = image.picture;
  const around = marks > 0 ? `, and ${formatCount(marks)} of text around them` : "";
  return [name, `${formatCount(tokens)} tokens in ${pieces.length} ${pieces.length > 1 ? "pieces" : "piece"}${around}`];
}

function fitFacts({ memory, cache, positions, sequences }: Fits): [string, string][] {
  const left = cache === 0 ? "the weights alone do not fit" : `${formatBytes(cache)} for the cache`;
  return [
    [`in ${formatBytes(memory)}`, left],
    ["", `${formatCount(positions)} positions, ${formatCount(sequences)} whole sequences`],
  ];
}
