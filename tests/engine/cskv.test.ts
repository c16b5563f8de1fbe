// Directions of cskv, found on models and used by them; those of the reference are in tests/golden/cskv.py.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  AbortError,
  type CacheOption,
  CalibrationError,
  cskv,
  type DirectionsCalibration,
  load,
  type Model,
  OptionError,
  type Progress,
  prefixkv,
} from "../../ts/index.ts";
import { cli } from "../kit/command_line.ts";
import { asked, directionsGolden } from "../kit/directions.ts";
import { native } from "../kit/fake_model.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { shared } from "../kit/turns.ts";

const folder = temporaryFolder("cskv");
const { samples, files } = directionsGolden("cskv");

let model: Model;
before(async () => {
  model = await load();
});
after(() => model.dispose());

/** The unit vectors at right angles that the rows of codes span, of each part. */
function spans(text: string, rank: number, size: number): number[][][] {
  const codes = new Int8Array(Buffer.from(text, "base64"));
  const parts = codes.length / (rank * size);
  return Array.from({ length: parts }, (_, part) => {
    const rows: number[][] = [];
    for (let index = 0; index < rank; index++) {
      const row = Array.from(codes.subarray((part * rank + index) * size, (part * rank + index + 1) * size));
      for (const other of rows) {
        const along = dot(row, other);
        for (const [at, x] of other.entries()) row[at] = (row[at] ?? 0) - along * x;
      }
      const long = Math.sqrt(dot(row, row));
      rows.push(row.map((x) => x / long));
    }
    return rows;
  });
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, at) => sum + x * (b[at] ?? 0), 0);

/** The sine of the largest angle between two spaces, or more: the norm of what is left of the vectors of one beside the other. */
function apart(some: number[][], others: number[][]): number {
  const left = some.map((row) => 1 - others.reduce((sum, other) => sum + dot(row, other) ** 2, 0));
  return Math.sqrt(left.reduce((sum, x) => sum + Math.max(x, 0), 0));
}

for (const want of files) {
  const { init, heads, alpha, rank } = want;
  shared(`${init}, ${heads}: directions span the reference's`, async () => {
    const size = heads === "joint" ? 192 : 32;
    const options = { samples, init, heads, most: rank / size, ...(alpha !== undefined && { alpha }) };
    const found = await model.calibrateCskv(options);
    assert.deepEqual(
      [found.rank, found.init, found.heads, found.alpha, found.samples],
      [rank, init, heads, alpha, samples.length],
    );
    assert.equal(found.layers.length, want.layers.length);
    let most = 0;
    for (const [index, layer] of want.layers.entries())
      for (const side of ["keys", "values"] as const) {
        const got = spans(found.layers[index]?.[side] ?? "", rank, size);
        for (const [part, rows] of spans(layer[side], rank, size).entries())
          most = Math.max(most, apart(rows, got[part] ?? []));
      }
    assert.ok(most < 0.02, `${most}`);
  });
}

test("directions are written, read and bound to the model", async () => {
  const file = join(folder, "directions.json");
  const seen: Progress[] = [];
  const calibration = await model.calibrateCskv({ samples, file, onProgress: (progress) => seen.push(progress) });
  assert.deepEqual(seen.at(1), { stage: "samples", done: 2, total: 2 });
  assert.deepEqual(seen.at(-1), { stage: "layers", done: 10, total: 10 });
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), calibration);
  const { layers, model: bound, rank, positions = 0 } = calibration;
  assert.deepEqual([layers.length, rank, bound.fingerprint], [10, 16, model.info.fingerprint]);
  assert.ok(positions > 200);
  const full = await model.generate({ ...asked, maxTokens: 20 });
  const alone = await model.generate({ ...asked, maxTokens: 20, cache: cskv({ calibration: file, window: 8 }) });
  assert.ok(alone.memory.resident < 0.75 * full.memory.resident, `${alone.memory.resident}`);
  const coded = await model.generate({ ...asked, maxTokens: 20, cache: cskv({ calibration: file, bits: "4" }) });
  assert.ok(coded.memory.resident < alone.memory.resident && coded.memory.scales > 0);
  const both = await model.generate({
    ...asked,
    maxTokens: 20,
    cache: [prefixkv({ keep: 0.4 }), cskv({ calibration })],
  });
  assert.ok(both.memory.resident < alone.memory.resident);
  const other: DirectionsCalibration = { ...calibration, model: { ...bound, fingerprint: "another" } };
  await assert.rejects(model.generate({ ...asked, cache: cskv({ calibration: other }) }), CalibrationError);
  await assert.rejects(model.generate({ ...asked, cache: cskv({ calibration, keys: 0.75 }) }), /16 of 32 directions/);
  await assert.rejects(model.generate({ ...asked, cache: cskv() }), OptionError);
});

shared("half of the coordinates stay near the full cache, a quarter goes farther", async () => {
  const { text } = await model.generate({ ...asked, maxTokens: 60 });
  const far = async (cache: CacheOption) => {
    const { kl = [] } = await model.score({ ...asked, answer: text, cache, kl: true });
    return kl.reduce((sum, one) => sum + one, 0) / kl.length;
  };
  for (const init of ["covariance", "asvd"] as const) {
    const calibration = await model.calibrateCskv({ samples, init });
    const of = (share: number) => far(cskv({ calibration, keys: share, values: share, window: 8 }));
    const [half, quarter] = [await of(0.5), await of(0.25)];
    assert.ok(half < 1e-3 && half < quarter, `${init}: ${half} and ${quarter}`);
  }
});

test("what cannot be is refused before any work", async () => {
  const refuse = async (options: object, reason: RegExp) =>
    assert.rejects(model.calibrateCskv({ samples, ...options }), (error: Error) => {
      assert.ok(error instanceof OptionError);
      assert.match(error.message, reason);
      return true;
    });
  await refuse({ init: "svd" }, /init/);
  await refuse({ alpha: 0.5 }, /alpha/);
  await refuse({ init: "asvd", alpha: 5 }, /alpha/);
  await refuse({ heads: "all" }, /heads/);
  await refuse({ most: 0 }, /most/);
  await refuse({ samples: [] }, /samples/);
  await refuse({ rank: 4 }, /rank/);
  const stop = new AbortController();
  stop.abort();
  await assert.rejects(model.calibrateCskv({ samples, signal: stop.signal }), AbortError);
});

test("calibrate --method cskv writes the file", async () => {
  const fake = native({ directions: [{ layer: 0, keys: "fwA=", values: "AH8=" }] });
  const [file, picture] = [join(folder, "cli.json"), join(folder, "a.png")];
  await writeFile(picture, "png");
  const args = ["calibrate", picture, "--method", "cskv", "--init", "asvd", "--most", "0.25", "--out", file];
  const { code, out, err } = await cli(args, { fake });
  assert.equal(code, 0, err);
  assert.match(out, /directions +8 in 1 layers, from 100 positions\nwrote .*cli\.json\n$/);
  const [asked] = fake.requests.map(({ request }) => request).filter(({ op }) => op === "directions");
  const { init, alpha, heads, most } = asked as unknown as Record<string, unknown>;
  assert.deepEqual([init, alpha, heads, most], ["asvd", 0.5, "each", 0.25]);
  const written = JSON.parse(await readFile(file, "utf8")) as DirectionsCalibration;
  assert.deepEqual([written.alpha, written.rank, written.layers.length], [0.5, 8, 1]);
  const misuse = await cli(["calibrate", picture, "--init", "asvd", "--out", file], { fake: native() });
  assert.ok(misuse.code === 2 && /--init goes with --method cskv/.test(misuse.err), misuse.err);
});
