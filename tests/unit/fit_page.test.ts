import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { block, type FitReport, figures, type Measured, statements, withBlock } from "../../bench/fit_page.ts";

type Point = [bytes: number, cache: unknown, resident: number, loss: number, held: number, heldLoss: number];

const measured = (points: readonly Point[]): Measured =>
  ({
    full: { resident: 4_000_000, loss: 0.08 },
    curve: points.map(([bytes, cache, resident, loss]) => ({ bytes, cache, resident, loss })),
    heldOut: points.map(([, , , , resident, loss]) => ({ resident, loss })),
  }) as unknown as Measured;

const both = [{ method: "prefixkv", keep: 0.6 }, { method: "int4" }];
const report: FitReport = {
  origin: {
    date: "2026-01-02",
    commit: "abc",
    changed: false,
    machine: { slug: "x", cpu: "A CPU", cores: 2, features: [], platform: "linux-x64" },
    versions: {},
  },
  scenes: { fitted: 10, heldOut: 30 },
  defaults: { score: "mix", window: 32 },
  stores: ["int8", "int4"],
  full: { resident: 4_700_000, loss: 0.07 },
  both: measured([
    [524_288, both, 519_360, Math.log(1.2), 534_774, Math.log(1.26)],
    [1_048_576, [{ method: "int4" }], 900_000, Math.log(1.1), 950_000, Math.log(1.1)],
  ]),
  "entries alone": measured([
    [524_288, [{ method: "prefixkv", keep: 0.1 }], 520_000, Math.log(6), 556_000, Math.log(6)],
    [1_048_576, [{ method: "prefixkv", keep: 0.2 }], 1_040_000, Math.log(2.2), 1_000_000, Math.log(2.2)],
  ]),
  "bits alone": measured([[1_048_576, [{ method: "int4" }], 900_000, Math.log(1.1), 950_000, Math.log(1.1)]]),
};

test("every number of bytes has a row for each way, and one that has nothing says so", () => {
  assert.deepEqual(figures(report).split("\n").slice(2), [
    "| 524,288 | both | `prefixkv({ keep: 0.6 }) + int4()` | 519,360 | 1.200 | 534,774 | 1.260 |",
    "|  | entries alone | `prefixkv({ keep: 0.1 })` | 520,000 | 6.000 | 556,000 | 6.000 |",
    "|  | bits alone | none fits |  |  |  |  |",
    "| 1,048,576 | both | `int4()` | 900,000 | 1.100 | 950,000 | 1.100 |",
    "|  | entries alone | `prefixkv({ keep: 0.2 })` | 1,040,000 | 2.200 | 1,000,000 | 2.200 |",
    "|  | bits alone | `int4()` | 900,000 | 1.100 | 950,000 | 1.100 |",
  ]);
});

test("what is said is read off the figures", () => {
  const [entries = "", bits = "", held = ""] = statements(report);
  assert.match(entries, /524,288: 5\.000 times; 1,048,576: 2\.000 times/);
  assert.match(bits, /524,288: bits alone do not fit; 1,048,576: 1\.000 times/);
  assert.match(held, /up to 5 % away.*2 % beyond 524,288\./);
  assert.match(
    block(report),
    /`int8`, `int4`.*4,000,000 bytes and has 1\.083.*4,700,000 and 1\.073.*score: "mix", window: 32/,
  );
});

test("the guide has the figures of the last run", async () => {
  const [guide, json] = await Promise.all(
    ["docs/fit.md", "bench/results/2c-amd-epyc-avx2-fit.json"].map((path) =>
      readFile(new URL(`../../${path}`, import.meta.url), "utf8"),
    ),
  );
  assert.ok(guide?.includes(figures(JSON.parse(json ?? ""))));
});

test("the page has a place for it, whatever stands there", async () => {
  const page = await readFile(new URL("../../docs/fit.md", import.meta.url), "utf8");
  const written = withBlock(page, report);
  assert.ok(written.includes(block(report)) && !written.includes("(Fitted when"));
  assert.equal(withBlock(written, report), written);
  assert.ok(written.startsWith(page.slice(0, page.indexOf("## What comes out"))));
  assert.ok(written.trimEnd().endsWith("these scenes do not say."));
  assert.throws(() => withBlock("# No marks", report), /no part between/);
});
