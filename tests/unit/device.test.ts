// Which of the two native files a device leads to, and what `auto` does with what it finds.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DeviceError, OptionError } from "../../ts/errors.ts";
import { about, loadWith } from "../../ts/load.ts";
import { gpuName } from "../../ts/native/device.ts";
import { FakeNative } from "../kit/fake_native.ts";

/** Two files, and which of them was opened for what. */
function files(devices: string[]) {
  const cpu = new FakeNative();
  const cuda = Object.assign(new FakeNative(), { devices });
  const asked: unknown[][] = [];
  const pick = async (binding?: string, gpu?: string) => {
    asked.push([binding, gpu]);
    return gpu === undefined ? { native: cpu, file: "cpu.node" } : { native: cuda, file: "cuda.node" };
  };
  return { cpu, cuda, asked, pick };
}

test("the file for CUDA is opened for GPUs only", async () => {
  for (const device of [undefined, "cpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA"]) {
    const { asked, pick, cpu } = files(["cpu", "cuda:0"]);
    const model = await loadWith(pick, "/m", { binding: "napi", ...(device && { device: device as never }) });
    await model.dispose();
    assert.deepEqual(asked, [["napi", undefined]], device);
    assert.deepEqual(cpu.loads, [{ source: "/m", ...(device && { device }) }]);
  }
  for (const device of ["cuda", "cuda:0", "cuda:17"] as const) {
    const { asked, pick, cpu, cuda } = files(["cpu"]);
    await (await loadWith(pick, "/m", { device, weights: "f16" })).dispose();
    assert.deepEqual(asked, [[undefined, device]]);
    assert.deepEqual([cpu.loads, cuda.loads], [[], [{ source: "/m", device, weights: "f16" }]]);
  }
  assert.deepEqual([gpuName("cuda:1"), gpuName("auto"), gpuName(undefined)], ["cuda:1", undefined, undefined]);
});

test("auto takes the first GPU that is listed", async () => {
  const { pick, cpu, cuda } = files(["cpu", "cuda:0", "cuda:1"]);
  await (await loadWith(pick, "/m", { device: "auto" })).dispose();
  assert.deepEqual([cpu.loads, cuda.loads], [[], [{ source: "/m", device: "cuda" }]]);
});

test("auto takes the CPU where there is no file, no GPU, or one that cannot be used", async () => {
  const absent = files([]);
  const pick = async (binding?: string, gpu?: string) => {
    if (gpu !== undefined) throw new DeviceError("device", "not there", { device: gpu });
    return absent.pick(binding);
  };
  await (await loadWith(pick, "/m", { device: "auto" })).dispose();
  assert.deepEqual(absent.cpu.loads, [{ source: "/m", device: "cpu" }]);

  const none = files(["cpu"]);
  await (await loadWith(none.pick, "/m", { device: "auto" })).dispose();
  assert.deepEqual([none.cpu.loads.length, none.cuda.loads.length], [1, 0]);

  const old = files(["cpu", "cuda:0"]);
  old.cuda.loadError = { code: "device", message: "compute capability 7.5", details: { device: "cuda:0" } };
  await (await loadWith(old.pick, "/m", { device: "auto" })).dispose();
  assert.deepEqual([old.cpu.loads, old.cuda.closes], [[{ source: "/m", device: "cpu" }], 1]);
});

test("auto hides no error that is not about the device", async () => {
  const { pick, cpu, cuda } = files(["cpu", "cuda:0"]);
  cuda.loadError = { code: "model-file", message: "broken", details: {} };
  await assert.rejects(loadWith(pick, "/m", { device: "auto" }), /broken/);
  const broken = () => Promise.reject(new OptionError("option", "no such binding"));
  await assert.rejects(loadWith(broken, "/m", { device: "auto" }), /no such binding/);
  assert.deepEqual(cpu.loads, []);
});

test("about takes the name of a build", async () => {
  await assert.rejects(about({ device: "auto" as never }), (error) => {
    return error instanceof OptionError && /must be one of "cpu", "cuda", found "auto"/.test(error.message);
  });
});
