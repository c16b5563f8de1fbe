import { type LoadOptions, openModel } from "../load.ts";
import type { Model } from "../model.ts";
import type { Binding } from "../native/pick.ts";
import type { Values } from "./args.ts";
import { type Context, loadFlags } from "./command.ts";
import { ProgressBar } from "./progress.ts";

/** Loads the model that the flags name, uses it and frees it, whatever happens. */
export async function withModel<T>(values: Values, context: Context, use: (model: Model) => Promise<T>): Promise<T> {
  const bar = new ProgressBar(context);
  const { model: source, binding, ...options } = values.options(loadFlags.map((flag) => flag.name));
  const { native } = await context.door(binding as Binding | undefined);
  const model = await openModel(native, source as string | undefined, {
    ...(options as LoadOptions),
    signal: context.signal,
    onProgress: bar.update,
  }).finally(() => bar.clear());
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}
