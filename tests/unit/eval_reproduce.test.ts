import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { prepareMethods } from "../../ts/eval/methods.ts";
import { missingFor, publishedTables, reproduce, sizeOf } from "../../ts/eval/reproduce/reproduce.ts";
import { openModel } from "../../ts/load.ts";
import type { Model } from "../../ts/model.ts";
import { cli } from "../kit/command_line.ts";
import { FakeNative, info } from "../kit/fake_native.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const folder = temporaryFolder("reproduce");

const llava = (layers: number, hiddenSize: number): Pick<Model, "info"> => ({
  info: { ...info, layers, hiddenSize, image: { tokens: 576, size: 336, patch: 14, picture: null } },
});

test("every published row has as many values as sizes, and something beside it", async () => {
  for (const { rows, keeps, ours, name } of publishedTables) {
    for (const { method, values, model } of rows) {
      for (const list of Object.values(values)) {
        assert.equal(list.length, keeps.length, `${name} ${method}`);
        assert.ok(list.every((value) => value === null || value > 0));
      }
      const beside = ours[method] ?? [];
      assert.ok(beside.length > 0, `${name} ${method}`);
      for (const { method: made } of beside) {
        if (typeof made === "function") await prepareMethods([made(model)]);
      }
    }
  }
  // Some numbers by hand, as the figures have them.
  const [description, mmVet, speed] = publishedTables;
  const row = (table: typeof description, model: string, method: string) =>
    table?.rows.find((row) => row.model === model && row.method.startsWith(method))?.values;
  assert.deepEqual(row(description, "7B", "PrefixKV")?.ppl?.slice(0, 2), [4.41, 3.69]);
  assert.deepEqual(row(description, "13B", "Local")?.rougeL?.at(-1), 0.55);
  assert.deepEqual(row(mmVet, "7B", "H2O")?.ppl?.[0], 158);
  assert.equal(row(speed, "7B", "PrefixKV, batch 16")?.speed?.[0], 486.7 / 266.6);
});

test("models are known by their sizes, and what is missing is named", () => {
  assert.deepEqual([sizeOf(llava(32, 4096)), sizeOf(llava(40, 5120)), sizeOf({ info })], ["7B", "13B", undefined]);
  const [description, , , ablation] = publishedTables;
  assert.ok(description && ablation);
  assert.deepEqual(missingFor(description, "13B", "somewhere", 1000), []);
  assert.match(missingFor(ablation, "13B", "somewhere", 218).join(), /^LLaVA-1\.5 7B: give its folder/);
  const [model, data] = missingFor(description, undefined, undefined, 60);
  assert.match(model ?? "", /LLaVA-1\.5 7B or 13B/);
  assert.match(data ?? "", /detail_1k\.json \(1000 samples\).*--data/);
  assert.match(missingFor(description, "7B", "part", 20).join(), /all 1000 samples .* 20 are run/);
});

test("a table stands beside ours, with what is not built named", async () => {
  const model = await openModel(new FakeNative(), ".");
  const { missing, rows, samples } = await reproduce({
    table: "prefixkv-mm-vet",
    model,
    out: join(folder, "table"),
    limit: 1,
  });
  await model.dispose();
  assert.deepEqual([missing.length, samples], [2, 1]);
  const of = (method: string, variant: string) =>
    rows.filter((row) => row.model === "7B" && row.method === method && row.variant === variant);
  assert.equal(of("PrefixKV", "official").length, 2);
  const [ppl] = of("PrefixKV", "correct");
  assert.deepEqual([ppl?.published[0], ppl?.ours.length], [7.38, 9]);
  assert.ok(ppl?.ours.every((value) => Math.abs((value ?? 0) - Math.E) < 1e-6));
  const [elastic] = of("Elastic", "correct");
  assert.match(elastic?.note ?? "", /^not built: Elastic Cache/);
  assert.ok(elastic?.ours.every((value) => value === null));
});

test("the command lists, warns and prints", async () => {
  const list = await cli(["reproduce"]);
  assert.equal(list.code, 0);
  for (const { name } of publishedTables) assert.ok(list.out.includes(name));
  const { code, out } = await cli(["reproduce", "prefixkv-ablation", "--limit", "1", "--out", join(folder, "cli")]);
  assert.equal(code, 0);
  assert.match(out, /This is not the published setting, so nothing is reproduced\. Missing:\n- LLaVA-1\.5 7B/);
  assert.match(out, /7B +PyramidKV +correct +20\.8 \/ - .* not built: PyramidKV/);
  assert.match(out, /7B +PrefixKV, online +correct +7\.38 \/ 2\.72/);
  const unknown = await cli(["reproduce", "prefixkv-table"]);
  assert.deepEqual([unknown.code, unknown.out], [2, ""]);
  assert.match(unknown.err, /there is no table `prefixkv-table`; there are prefixkv-description,/);
});

test("eval and compare on the command line", async () => {
  const [before, after] = [join(folder, "before"), join(folder, "after")];
  const grid = (out: string, methods: string) => [
    "eval",
    "--methods",
    methods,
    "--keeps",
    "0.5",
    "--limit",
    "2",
    "--out",
    out,
  ];
  const shown = await cli(grid(before, "h2o,prefixkv:score=text,decode=none"));
  assert.equal(shown.code, 0, shown.err);
  assert.match(shown.out, /^method +keep +perplexity .*\nfull +1 +2\.718 \(2\.718 to 2\.718\)/);
  assert.match(shown.out, /\nprefixkv:score=text,decode=none +0\.5 /);
  await cli(grid(after, "h2o"));
  const same = await cli(["compare", before, before, "--threshold", "ppl=0.02,rougeL=0"]);
  assert.deepEqual([same.code, same.out.trimEnd().endsWith("not worse")], [0, true]);
  const gone = await cli(["compare", before, after, "--threshold", "ppl=0.02"]);
  assert.equal(gone.code, 1);
  assert.match(gone.out, /prefixkv:score=text,decode=none 0\.5: missing in .*\nworse\n$/);
  for (const [args, pattern] of [
    [["compare", before, "--threshold", "ppl=0.02"], /needs two folders/],
    [["compare", before, after, "--threshold", "pll=0.02"], /METRIC=SHARE .* the metrics are ppl/],
    [["eval", "--methods", "h20", "--keeps", "0.5", "--out", after], /no method `h20`/],
    [["eval", "--methods", "h2o", "--keeps", "50", "--out", after], /--keeps needs shares/],
    [["eval", "--methods", "h2o", "--keeps", "0.5"], /eval needs --out DIR/],
  ] as const) {
    const { code, err } = await cli([...args]);
    assert.equal(code, 2, err);
    assert.match(err, pattern);
  }
  const other = await cli(grid(after, "snapkv"));
  assert.equal(other.code, 1);
  assert.match(other.err, /error\[option\].*holds another run: methods was/);
});
