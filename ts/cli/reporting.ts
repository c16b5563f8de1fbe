import { basename } from "node:path";
import type { CacheOption } from "../cache.ts";
import type { CacheMethod } from "../generated/methods.ts";
import type { Keep, Trace } from "../generated/wire.ts";
import type { ImageInput } from "../media.ts";
import type { Model } from "../model.ts";
import type { GenerateOptions } from "../options/requests.ts";
import { describeReport } from "../report/describe.ts";
import type { Run } from "../report/runs.ts";
import { requirePlace, writeReport } from "../report/write.ts";
import { UsageError } from "./args.ts";
import { findMethod } from "./cache_flags.ts";
import type { Flag } from "./command.ts";
import type { Values } from "./values.ts";

/** The flags of a command that can write a report. */
export const reportFlags: readonly Flag[] = [
  { name: "report", type: "string", value: "FILE", text: "write an HTML page with charts of what the cache keeps" },
  { name: "svg", type: "string", value: "FOLDER", text: "with --report: also write its charts as SVG files" },
  {
    name: "compare",
    type: "strings",
    value: "NAME",
    text: "with --report: another method at the same size; may be given more than once",
  },
];

/** The size at which methods are shown when none is asked for. */
const defaultKeep = 0.5;

/** A prompt, its pictures, its method, and the flags that say where the report goes. */
interface Asked {
  prompt: string;
  pictures: readonly ImageInput[];
  cache: CacheOption | undefined;
  values: Values;
}

/** Answers like `generate` with the same options, and writes the report that the flags name. */
export async function answerWithReport(
  model: Model,
  options: GenerateOptions,
  { prompt, pictures: images, cache, values }: Asked,
): Promise<Trace> {
  const file = values.text("report") ?? "";
  await requirePlace(file, values.text("svg"));
  const keep = keepOf(cache);
  const size = keep ?? (cache === undefined ? defaultKeep : undefined);
  const others = [...(cache === undefined ? ["prefixkv"] : []), ...values.texts("compare")].map((name) => {
    const facts = findMethod(name);
    return (
      facts.name === "full" || size === undefined ? { method: facts.name } : { method: facts.name, keep: size }
    ) as CacheMethod;
  });
  const answer = await model.trace(options);
  const runs: Run[] = [{ label: labelOf(cache), trace: answer }];
  for (const other of others)
    runs.push({ label: labelOf(other), trace: await model.trace({ ...options, cache: other }) });
  // Where nothing was to be freed, what PrefixKV would free comes first.
  if (cache === undefined) runs.splice(0, 2, ...runs.slice(0, 2).reverse());
  const pictures = await Promise.all(
    images.map(async (picture) => ({ name: picture.name.split(/[\\/]/).at(-1) ?? "", bytes: await picture.bytes() })),
  );
  await writeReport(await describeReport({ info: model.info, prompt, runs, pictures }), file, values.text("svg"));
  return answer;
}

/** Refuses flags that need `--report`. */
export function checkReportFlags(values: Values): void {
  const alone = ["svg", "compare"].find((name) => values.has(name));
  if (alone !== undefined && !values.has("report")) throw new UsageError(`--${alone} needs --report FILE`);
}

/** Whether what the cache is to be stands in a file. */
function isFile(cache: CacheOption): cache is Extract<CacheOption, string | URL> {
  return typeof cache === "string" || cache instanceof URL;
}

/** A method and the stages behind it. */
function stagesOf(cache: CacheOption | undefined): readonly CacheMethod[] {
  if (cache === undefined || isFile(cache)) return [];
  return Array.isArray(cache) ? cache : [cache as CacheMethod];
}

function keepOf(cache: CacheOption | undefined): Keep | undefined {
  return stagesOf(cache).flatMap((stage) => ("keep" in stage ? [stage.keep] : []))[0];
}

function labelOf(cache: CacheOption | undefined): string {
  if (cache === undefined) return "full";
  if (isFile(cache)) return basename(String(cache));
  const keep = keepOf(cache);
  const name = stagesOf(cache)
    .map(({ method }) => method)
    .join(" + ");
  if (keep === undefined) return name;
  return `${name} ${
    typeof keep === "number"
      ? keep
      : Object.entries(keep)
          .map(([unit, size]) => `${size} ${unit}`)
          .join("")
  }`;
}
