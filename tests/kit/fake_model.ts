import { after } from "node:test";
import { openModel } from "../../ts/load.ts";
import type { Model } from "../../ts/model.ts";
import { FakeNative } from "./fake_native.ts";

/** A fake that behaves otherwise. */
export const native = (behaviour: Partial<FakeNative> = {}): FakeNative => Object.assign(new FakeNative(), behaviour);

/** Opens models over fakes, which are disposed after the tests of the calling file. */
export function fakeModels(): (fake: FakeNative) => Promise<Model> {
  const opened: Model[] = [];
  after(() => Promise.all(opened.map((model) => model.dispose())));
  return async (fake) => {
    const model = await openModel(fake);
    opened.push(model);
    return model;
  };
}
