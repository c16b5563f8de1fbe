import { loadWith } from "../load.ts";
import type { Model } from "../model.ts";
import type { LoadOptions } from "../options/load.ts";
import { type Context, loadFlags, withVision } from "./command.ts";
import { ProgressBar } from "./progress_bar.ts";
import type { Values } from "./values.ts";

/** Loads the model that the flags name, uses it and frees it, whatever happens; `more` has options that no flag of loading has. */
export async function withModel<T>(
  values: Values,
  context: Context,
  use: (model: Model) => Promise<T>,
  more: LoadOptions = {},
): Promise<T> {
  const bar = new ProgressBar(context);
  const { model: source, ...options } = withVision(values.options(loadFlags.map((flag) => flag.name)));
  const model = await loadWith(context.door, source as string | undefined, {
    ...(options as LoadOptions),
    ...more,
    signal: context.signal,
    onProgress: bar.update,
  }).finally(() => bar.clear());
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}
