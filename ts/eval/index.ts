/** Quality, size and speed of cache methods, side by side: run a grid, resume an interrupted one, compare two. */
import "../required.ts";

export { bootstrap, type Interval } from "./bootstrap.ts";
export { type CompareResult, compareResults, type Thresholds } from "./compare.ts";
export { openData } from "./data/open.ts";
export { describes } from "./data/scenes.ts";
export { EvaluationError } from "./errors.ts";
export { evaluate } from "./evaluate.ts";
export { readResults } from "./files.ts";
export { readMethods } from "./method_file.ts";
export { type EvalMethod, parseMethod } from "./methods.ts";
export { agreement } from "./metrics.ts";
export type { EvaluateOptions, ReproduceOptions } from "./options.ts";
export type { CellSummary, QualityRecord, RunRecord, Spread, Summary, TimingRecord } from "./records.ts";
export { publishedTables, type Reproduced, reproduce } from "./reproduce/reproduce.ts";
export type { PublishedTable } from "./reproduce/table.ts";
export { rougeL } from "./rouge.ts";
export { dataOf, type EvalData, type EvalSample, type SceneObject } from "./samples.ts";
export { vqaAccuracy } from "./vqa.ts";
