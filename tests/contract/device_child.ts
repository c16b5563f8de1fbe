// Run by device.test.ts in a process of its own, because what is open stays open: `device_child.ts DOOR`. Prints one JSON object.
import { about, load, type PrefixKvError } from "../../ts/index.ts";
import { openModel } from "../../ts/load.ts";
import { pickDoor } from "../../ts/native/pick.ts";
import type { Door } from "./doors.ts";

const binding = process.argv[2] as Door;
const asked = { prompt: "USER: Describe. ASSISTANT:", maxTokens: 20, ignoreEos: true };

const told = (error: unknown) => {
  const { name, code, message, details } = error as PrefixKvError;
  return { name, code, message, details };
};

/** Where a load ends up, or its error. */
async function place(device: "cpu" | "cuda" | "cuda:1" | "auto" | undefined) {
  try {
    const model = await load(undefined, { binding, ...(device && { device }) });
    const where = model.info.device;
    await model.dispose();
    return where;
  } catch (error) {
    return told(error);
  }
}

/** One model in each of the two native files, at the same time. */
async function both() {
  const door = await pickDoor(binding, "cuda").catch(() => undefined);
  if (door === undefined) return null;
  const models = [await load(undefined, { binding }), await openModel(door.native, undefined, { device: "cpu" })];
  const live = async () => {
    const files = [(await pickDoor(binding)).native, door.native];
    return files.map((native) => JSON.parse(native.about()).live.models as number);
  };
  const open = await live();
  const answers = await Promise.all(models.map((model) => model.generate(asked)));
  await models[1]?.dispose();
  const half = await live();
  await models[0]?.dispose();
  return { tokens: answers.map(({ tokens }) => tokens), live: [open, half, await live()] };
}

const outcome = {
  plain: await place(undefined),
  cpu: await place("cpu"),
  cuda: await place("cuda"),
  second: await place("cuda:1"),
  auto: [await place("auto"), await place("auto")],
  about: await about({ device: "cuda" }).catch(told),
  both: await both(),
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);
