import type { CustomPlanner, PlannedMethod } from "./custom_plan.ts";
import { type CustomOptions, custom as recipe } from "./generated/methods.ts";
import { Place } from "./options/place.ts";
import { deepFreeze } from "./options/plain.ts";
import { isPlanned, readPlanned } from "./options/planned.ts";

/**
 * A method of your own: any score with any budget, put together from options; or a function that is shown the cache after the prompt
 * (and after steps, if it asks for that) and says which entries stay.
 *
 * @example
 * ```ts
 * import { custom, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "What color is the star?"] }];
 * const recipe = custom({ keep: 0.4, score: "window", budget: "ada" });
 * const everyOther = custom({ plan: ({ lanes }) => lanes.map(({ positions }) => positions.map((_, i) => i).filter((i) => i % 2 === 0)) });
 * for (const cache of [recipe, everyOther]) console.log((await model.generate({ messages, cache })).memory.keptPerLayer);
 * ```
 */
export function custom(options: CustomPlanner): PlannedMethod;
export function custom(options?: CustomOptions): ReturnType<typeof recipe>;
export function custom(options: CustomPlanner | CustomOptions = {}): PlannedMethod | ReturnType<typeof recipe> {
  const place = new Place("custom");
  if (!isPlanned(options, place)) return recipe(options as CustomOptions);
  const { plan, ...rest } = readPlanned(options, place);
  return Object.freeze({ ...deepFreeze(rest), plan }) as PlannedMethod;
}
