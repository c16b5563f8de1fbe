// Latents of clla, found on models and used by them; those of the reference are in tests/golden/clla.py.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  AbortError,
  type CacheOption,
  CalibrationError,
  clla,
  cskv,
  type DirectionsCalibration,
  load,
  type Model,
  merge,
  OptionError,
  type Progress,
  prefixkv,
} from "../../ts/index.ts";
import { cli } from "../kit/command_line.ts";
import { asked, directionsGolden } from "../kit/directions.ts";
import { native } from "../kit/fake_model.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { shared } from "../kit/turns.ts";

const folder = temporaryFolder("clla");
const { samples, files } = directionsGolden("clla");

let model: Model;
before(async () => {
  model = await load();
});
after(() => model.dispose());

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, at) => sum + x * (b[at] ?? 0), 0);

/** The unit vectors at right angles that the directions of two layers span, of each block of heads. */
function spans({ layers, rank }: DirectionsCalibration, pair: number, size: number): number[][][] {
  const of = layers.filter(({ layer }) => layer === pair || layer === pair + 1);
  const parts = of.flatMap(({ keys, values }) => [keys, values]).map((x) => new Int8Array(Buffer.from(x, "base64")));
  assert.equal(parts.length, 4);
  return Array.from({ length: (parts[0]?.length ?? 0) / (rank * size) }, (_, block) => {
    const rows: number[][] = [];
    for (let index = 0; index < rank; index++) {
      const start = (block * rank + index) * size;
      const row = parts.flatMap((part) => Array.from(part.subarray(start, start + size)));
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

/** The sine of the largest angle between two spaces, or more: the norm of what is left of the vectors of one beside the other. */
function apart(some: number[][], others: number[][]): number {
  const left = some.map((row) => 1 - others.reduce((sum, other) => sum + dot(row, other) ** 2, 0));
  return Math.sqrt(left.reduce((sum, x) => sum + Math.max(x, 0), 0));
}

// Of all heads together the embedded model has more channels than are taken apart in a short time.
for (const want of files.filter(({ heads }) => heads === "each")) {
  const { heads, rank } = want;
  shared(`${heads}: latents span the reference's`, async () => {
    const size = 32;
    const found = await model.calibrateClla({ samples, heads, most: rank / (4 * size) });
    assert.deepEqual([found.rank, found.heads, found.span, found.samples], [rank, heads, "pair", samples.length]);
    assert.deepEqual(
      found.layers.map(({ layer }) => layer),
      Array.from({ length: 10 }, (_, layer) => layer),
    );
    let most = 0;
    for (const [index, { layer, sizes }] of want.layers.entries()) {
      const own = found.layers.find((of) => of.layer === layer)?.sizes ?? [0, 0];
      for (const [side, size] of (sizes ?? []).entries()) assert.ok(Math.abs((own[side] ?? 0) / size - 1) < 1e-3);
      if (index % 2 === 1) continue;
      const got = spans(found, layer, size);
      for (const [block, rows] of spans(want, layer, size).entries()) {
        most = Math.max(most, apart(rows, got[block] ?? []));
      }
    }
    assert.ok(most < 0.03, `${most}`);
  });
}

test("latents are written, read and bound to the model", async () => {
  const file = join(folder, "latents.json");
  const seen: Progress[] = [];
  const calibration = await model.calibrateClla({ samples, file, onProgress: (progress) => seen.push(progress) });
  assert.deepEqual(seen.at(1), { stage: "samples", done: 2, total: 2 });
  assert.deepEqual(seen.at(-1), { stage: "layers", done: 10, total: 10 });
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), calibration);
  const { layers, model: bound, rank } = calibration;
  assert.deepEqual([layers.length, rank, bound.fingerprint], [10, 64, model.info.fingerprint]);
  const of = (cache: CacheOption) => model.generate({ ...asked, maxTokens: 20, cache });
  const full = await model.generate({ ...asked, maxTokens: 20 });
  const alone = await of(clla({ calibration: file, window: 8 }));
  // The directions take 1 MB here, which is much beside a cache of 2.7 MB and the same for a longer one.
  assert.ok(alone.memory.payload < 0.6 * full.memory.payload, `${alone.memory.payload}`);
  assert.ok(alone.memory.resident < full.memory.resident, `${alone.memory.resident}`);
  const coded = await of(clla({ calibration: file, bits: "4" }));
  assert.ok(coded.memory.resident < alone.memory.resident && coded.memory.scales > 0);
  const both = await of([prefixkv({ keep: 0.4 }), clla({ calibration, bits: "4" })]);
  assert.ok(both.memory.resident < alone.memory.resident);
  const other: DirectionsCalibration = { ...calibration, model: { ...bound, fingerprint: "another" } };
  await assert.rejects(of(clla({ calibration: other })), CalibrationError);
  await assert.rejects(of(clla({ calibration, latent: 0.75 })), /64 of 128 directions/);
  await assert.rejects(of(cskv({ calibration })), /calibrateCskv/);
  await assert.rejects(of(clla()), OptionError);
  await assert.rejects(of([prefixkv({ keep: 0.4 }), merge(), clla({ calibration })]), /leave merge out/);
});

shared("half of the numbers stay near the full cache, a quarter goes farther", async () => {
  const { text } = await model.generate({ ...asked, maxTokens: 60 });
  const calibration = await model.calibrateClla({ samples });
  const far = async (latent: number) => {
    const cache = clla({ calibration, latent, window: 8 });
    const { kl = [] } = await model.score({ ...asked, answer: text, cache, kl: true });
    return kl.reduce((sum, one) => sum + one, 0) / kl.length;
  };
  const [half, quarter] = [await far(0.5), await far(0.25)];
  assert.ok(half < 0.02 && half < quarter, `${half} and ${quarter}`);
});

test("what cannot be is refused before any work", async () => {
  const refuse = async (options: object, reason: RegExp) =>
    assert.rejects(model.calibrateClla({ samples, ...options }), (error: Error) => {
      assert.ok(error instanceof OptionError);
      assert.match(error.message, reason);
      return true;
    });
  await refuse({ init: "asvd" }, /init/);
  await refuse({ heads: "all" }, /heads/);
  await refuse({ heads: "joint" }, /up to 512 channels of keys and values of two layers/);
  await refuse({ most: 0 }, /most/);
  await refuse({ samples: [] }, /samples/);
  const stop = new AbortController();
  stop.abort();
  await assert.rejects(model.calibrateClla({ samples, signal: stop.signal }), AbortError);
});

test("calibrate --method clla writes the file", async () => {
  const sizes: [number, number] = [1, 2];
  const fake = native({ directions: [0, 1].map((layer) => ({ layer, keys: "fwA=", values: "AH8=", sizes })) });
  const [file, picture] = [join(folder, "cli.json"), join(folder, "a.png")];
  await writeFile(picture, "png");
  const args = ["calibrate", picture, "--method", "clla", "--heads", "joint", "--most", "0.25", "--out", file];
  const { code, out, err } = await cli(args, { fake });
  assert.equal(code, 0, err);
  assert.match(out, /latents +8 of 1 pairs of layers, from 100 positions\nwrote .*cli\.json\n$/);
  const [asked] = fake.requests.map(({ request }) => request).filter(({ op }) => op === "directions");
  const { init, span, heads, most } = asked as unknown as Record<string, unknown>;
  assert.deepEqual([init, span, heads, most], ["covariance", "pair", "joint", 0.25]);
  const written = JSON.parse(await readFile(file, "utf8")) as DirectionsCalibration;
  assert.deepEqual([written.span, written.rank, written.layers.length], ["pair", 8, 2]);
  const misuse = await cli(["calibrate", picture, "--most", "0.5", "--out", file], { fake: native() });
  assert.ok(misuse.code === 2 && /--most goes with --method cskv or clla/.test(misuse.err), misuse.err);
  const foreign = await cli([...args, "--init", "asvd"], { fake: native() });
  assert.ok(foreign.code === 2 && /--init goes with --method cskv/.test(foreign.err), foreign.err);
});
