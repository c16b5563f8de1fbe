/**
 * How far a load has come: `done` of `total` in the unit of the stage (bytes, for `download` and most others).
 *
 * @example
 * ```ts
 * import { load, type Progress } from "prefixkv";
 *
 * const onProgress = ({ stage, done, total }: Progress) => console.log(stage, done / total);
 * const model = await load(undefined, { onProgress });
 * await model.dispose();
 * ```
 */
export interface Progress {
  /** What is being done: `download`, `weights` and others. */
  stage: string;
  /** How much of it is done. */
  done: number;
  /** How much there is in all. */
  total: number;
}
