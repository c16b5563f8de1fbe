import assert from "node:assert/strict";
import { test } from "node:test";
import { checkThrough } from "../../ts/check_device.ts";
import { AbortError, checkDevice, DeviceError, type Progress } from "../../ts/index.ts";
import { deviceCheck, FakeNative } from "../kit/fake_native.ts";

test("a check hands on its options, its progress and its report", async () => {
  const native = new FakeNative();
  const steps: Progress[] = [];
  const report = await checkThrough(native, "cuda:1", { ceilings: true, onProgress: (step) => steps.push(step) });
  assert.deepEqual(report, deviceCheck);
  assert.deepEqual(native.checks, [{ device: "cuda:1", ceilings: true }]);
  assert.deepEqual(steps, [{ stage: "kernels", done: 1, total: 2 }]);
});

test("what is missing on the machine is a DeviceError", async () => {
  const native = new FakeNative();
  native.loadError = { code: "device", message: "no NVIDIA driver", details: { device: "cuda:0" } };
  await assert.rejects(checkThrough(native, "cuda"), DeviceError);
});

test("a signal ends a check, before it and during it", async () => {
  const native = new FakeNative();
  await assert.rejects(checkDevice("cuda", { signal: AbortSignal.abort() }), AbortError);
  native.stallAfter = 0;
  const controller = new AbortController();
  const check = checkThrough(native, "cuda", { signal: controller.signal, onProgress: () => controller.abort() });
  await assert.rejects(check, AbortError);
});
