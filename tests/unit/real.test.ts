// Conversion of the GGUF file of `npm run real` into Hugging Face's layout; tests/real/golden.py checks the whole against transformers.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { distance, positions, ranged } from "../real/compare.ts";
import { unpaired } from "../real/convert.ts";
import { Gguf } from "../real/gguf.ts";
import { encode, writeSafetensors } from "../real/safetensors.ts";

const bits = (values: number[], type: "f16" | "bf16") =>
  [...new Uint16Array(encode(Float32Array.from(values), type).buffer)].map((value) => value.toString(16));

test("weights are rounded to the nearest f16, halves to even", () => {
  assert.deepEqual(bits([0, -0, 1, -2, 65504, 2 ** -14, 2 ** -24], "f16"), [
    "0",
    "8000",
    "3c00",
    "c000",
    "7bff",
    "400",
    "1",
  ]);
  assert.deepEqual(bits([1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20], "f16"), ["3c00", "3c02", "3c01"]);
  // Below 2^-14 the steps are 2^-24: a half of one is 0, more is 1.
  assert.deepEqual(bits([2 ** -25, 1.5 * 2 ** -25, 3 * 2 ** -25, 2 ** -14 - 2 ** -26, 1e-30], "f16"), [
    "0",
    "1",
    "2",
    "400",
    "0",
  ]);
  assert.throws(() => bits([65536], "f16"), /does not fit f16/);
  assert.throws(() => bits([Number.NaN], "f16"), /does not fit f16/);
});

test("weights are rounded to the nearest bf16, halves to even", () => {
  assert.deepEqual(bits([1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -(1 + 2 ** -8 + 2 ** -20)], "bf16"), [
    "3f80",
    "3f80",
    "3f82",
    "bf81",
  ]);
});

test("rows of a head that llama.cpp has in pairs come back in halves", () => {
  // Two heads of four rows of one column: 0 1 | 2 3 are pairs there, 0 2 | 1 3 are halves here.
  assert.deepEqual([...unpaired(Float32Array.from([0, 1, 2, 3, 4, 5, 6, 7]), [8, 1], 2)], [0, 2, 1, 3, 4, 6, 5, 7]);
  const wide = Float32Array.from({ length: 24 }, (_, index) => index);
  assert.deepEqual(
    [...unpaired(wide, [4, 6], 1)].filter((_, index) => index % 6 === 0),
    [0, 12, 6, 18],
  );
});

test("a GGUF file is read, and written again as safetensors", async () => {
  const folder = await mkdtemp(join(tmpdir(), "prefixkv-real-"));
  try {
    const path = join(folder, "small.gguf");
    await writeFile(path, small());
    const gguf = new Gguf(path);
    assert.deepEqual(
      [...gguf.metadata],
      [
        ["general.architecture", "llama"],
        ["numbers", [1, -2]],
        ["yes", true],
      ],
    );
    assert.deepEqual(
      gguf.tensors.map(({ name, shape, type }) => ({ name, shape, type })),
      [
        { name: "plain", shape: [2, 1], type: "F32" },
        { name: "four", shape: [1, 32], type: "Q4_1" },
        { name: "eight", shape: [1, 32], type: "Q8_0" },
      ],
    );
    const values = gguf.tensors.map((tensor) => [...gguf.values(tensor)]);
    assert.deepEqual(values[0], [1.5, -2]);
    // d = 0.5, m = -1, the low halves first.
    assert.deepEqual(values[1]?.slice(0, 3), [-1, -0.5, 0]);
    assert.deepEqual(values[1]?.slice(16, 19), [6.5, 6, 5.5]);
    assert.deepEqual(values[2]?.slice(0, 3), [0, -0.25, -0.5]);

    gguf.close();

    const made = join(folder, "model.safetensors");
    writeSafetensors(made, "bf16", [{ name: "plain", shape: [2], values: () => Float32Array.from([1.5, -2]) }]);
    const bytes = await readFile(made);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8"));
    assert.deepEqual(header.plain, { dtype: "BF16", shape: [2], data_offsets: [0, 4] });
    assert.equal((8 + length) % 8, 0);
    assert.deepEqual([...bytes.subarray(8 + length)], [0xc0, 0x3f, 0x00, 0xc0]);

    await writeFile(path, small().subarray(0, 60));
    assert.throws(() => new Gguf(path), /ends inside its header/);
    await writeFile(path, "a text");
    assert.throws(() => new Gguf(path), /not a GGUF file/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("distances do not take NaN for small", () => {
  assert.deepEqual(distance([1, 2], [1, 4]), { mean: 1, worst: 2 });
  assert.ok(Number.isNaN(distance([1, Number.NaN, 1], [1, 1, 1]).worst));
  assert.throws(() => distance([1], [1, 2]));
  assert.deepEqual([...positions("CQI=")], [0, 3, 9]);
  assert.deepEqual([...ranged("0-2,7")], [0, 1, 2, 7]);
  assert.equal(ranged("").size, 0);
});

/** A file with a value of some kinds and a tensor of each format. */
function small(): Uint8Array {
  const parts: Buffer[] = [];
  const u32 = (value: number) => parts.push(Buffer.from(Uint32Array.of(value).buffer));
  const u64 = (value: number) => parts.push(Buffer.from(BigUint64Array.of(BigInt(value)).buffer));
  const text = (value: string) => {
    u64(value.length);
    parts.push(Buffer.from(value));
  };
  parts.push(Buffer.from("GGUF"));
  u32(3);
  u64(3);
  u64(3);
  text("general.architecture");
  u32(8);
  text("llama");
  text("numbers");
  u32(9);
  u32(5);
  u64(2);
  parts.push(Buffer.from(Int32Array.of(1, -2).buffer));
  text("yes");
  u32(7);
  parts.push(Buffer.of(1));
  const tensor = (name: string, shape: number[], type: number, offset: number) => {
    text(name);
    u32(shape.length);
    for (const length of shape) u64(length);
    u32(type);
    u64(offset);
  };
  tensor("plain", [1, 2], 0, 0);
  tensor("four", [32, 1], 3, 32);
  tensor("eight", [32, 1], 8, 64);
  const start = Buffer.concat(parts);
  const padded = Buffer.alloc(Math.ceil(start.length / 32) * 32);
  start.copy(padded);
  const data = Buffer.alloc(98);
  data.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), 0);
  // 0.5 and -1 as f16; the low half counts up, the high half down.
  data.set([0x00, 0x38, 0x00, 0xbc], 32);
  for (let i = 0; i < 16; i++) data[36 + i] = i | ((15 - i) << 4);
  // 0.25 as f16.
  data.set([0x00, 0x34], 64);
  for (let i = 0; i < 32; i++) data.writeInt8(-i, 66 + i);
  return Buffer.concat([padded, data]);
}
