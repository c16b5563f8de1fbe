import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { added } from "../../bench/grids/add.ts";
import { markdown } from "../../bench/grids/page.ts";
import { together } from "../../bench/grids/parts.ts";
import { committed, grids, methodsOf, trained } from "../../bench/grids/run.ts";
import { canTell, memory, signed, works, worksNot } from "../../bench/grids/statements.ts";
import { blindOf, type Evaluated, sumUp } from "../../bench/grids/summary.ts";
import { between, equalBytes } from "../../bench/grids/tables.ts";
import type { Results } from "../../ts/eval/files.ts";
import type { Measured, QualityRecord, RunRecord } from "../../ts/eval/records.ts";
import type { EvalSample } from "../../ts/eval/samples.ts";
import { methods as table } from "../../ts/generated/method_table.ts";
import { origin } from "../kit/origin.ts";

const run: RunRecord = {
  version: 2,
  package: "0.1.0",
  model: {
    source: "tiny-llava",
    fingerprint: "sha256:0123456789abcdef",
    architecture: "Llava",
    device: "cpu",
    layers: 2,
    kvHeads: 1,
    weights: "f32",
    kvBytesPerToken: 8,
  },
  data: { name: "easy-vqa-plain", samples: 4, hash: "0" },
  methods: ["full", "h2o", "snapkv", "knorm", "random"].map((id) => ({ id, cache: { method: id } })),
  keeps: [0.5, 0.1],
  threads: 1,
  seed: 1,
  baseline: "full",
  generate: { maxTokens: 256, beyond: 16 },
  kl: true,
};

const answers = ["yes", "no", "yes", "red"];
const samples: EvalSample[] = answers.map((answer, index) => ({
  id: `${index}`,
  image: "none.png",
  question: "What?",
  answer,
  answers: [answer],
}));

/** How far the negative log-likelihood of two tokens is above the full cache's, which answers are right, and the shares of bytes. */
interface Given {
  above: number;
  right: number;
  end?: number;
  peak?: number;
}

function cell(method: string, keep: number, { above, right, end = keep, peak = end }: Given): Measured[] {
  return answers.map((answer, index) => ({
    method,
    keep,
    sample: `${index}`,
    text: index < right ? answer : index % 2 === 0 ? `${answer} star` : "star",
    textTokens: 1,
    rougeL: 1,
    agreement: 1,
    nll: 1 + index + above,
    answerTokens: 2,
    ppl: 1,
    kl: 0,
    correct: index < right ? 1 : 0,
    keptPerLayer: [1, 1],
    keptShareAfterPrompt: keep,
    keptShareAtEnd: end,
    effectiveBits: 32,
    payloadBytes: 80,
    residentBytes: 100 * end,
    peakBytes: 100 * peak,
    fullBytes: 100,
  }));
}

const at = (keep: number): QualityRecord[] => [
  ...cell("h2o", keep, { above: 0.02, right: 4, peak: 1 }),
  ...cell("snapkv", keep, { above: 2, right: 1, end: 0.9 }),
  ...(keep < 0.5
    ? answers.map((_, index) => ({
        method: "knorm",
        keep,
        sample: `${index}`,
        refused: { code: "budget", least: 0.2 },
      }))
    : cell("knorm", keep, { above: 1, right: 3 })),
  ...cell("random", keep, { above: 1, right: 3 }),
];

function results(full: Given = { above: 0, right: 4 }, change: (line: Measured) => Measured = (line) => line): Results {
  const quality = [...cell("full", 1, full), ...at(0.5), ...at(0.1)].map((line) =>
    "refused" in line ? line : change(line),
  );
  const timings = quality.map(({ method, keep, sample }) => ({
    method,
    keep,
    sample,
    imageMs: 0,
    visionMs: 0,
    prefillMs: 1,
    decodeMs: 1,
    firstTokenMs: 1,
    tokensPerSecond: 9,
    engineMs: 2,
    wallMs: 3,
  }));
  return { run, quality, timings };
}

const evaluated = (...given: Parameters<typeof results>): Evaluated => sumUp(results(...given), samples, origin);

test("a grid is summed up with what is paired by sample, its times apart", () => {
  const report = evaluated();
  const [full, h2o, , knorm, random] = report.cells;
  assert.equal(full?.overFull, undefined);
  // The same is added to each of two tokens' sums, so that every resample has the same ratio.
  const ratio = Number(Math.exp(0.01).toPrecision(9));
  assert.deepEqual(h2o?.overFull, { value: ratio, low: ratio, high: ratio });
  assert.ok((h2o?.versusRandom?.ppl?.high ?? 0) < 0);
  assert.deepEqual(knorm?.versusRandom?.ppl, { difference: 0, low: 0, high: 0 });
  assert.equal(random?.versusRandom, undefined);
  assert.equal(report.answerTokens, 8);
  assert.deepEqual([report.timings.wallMs, report.timings.engineMs, report.timings.ratio], [108, 72, 1.5]);
  assert.doesNotMatch(JSON.stringify(report.cells), /Ms|PerSecond/);
  assert.equal(report.timings.cells.length, report.cells.length - 1);
  // SnapKV spoils three at each size, of which that with an even number begins right; L2 norm and Random the last one.
  assert.deepEqual(report.spoiled, { answers: 9, begun: 2 });
});

test("what is right without looking", () => {
  assert.deepEqual(blindOf(samples), { answers: 3, majority: "yes", majorityShare: 0.5, yesNo: 0.75, byKind: 0.75 });
  assert.equal(blindOf(samples.map(({ answers: _, ...sample }) => sample)), undefined);
  assert.equal(canTell(evaluated()), true);
  assert.equal(canTell(evaluated({ above: 0, right: 3 })), false);
});

test("the statements follow the figures", () => {
  const report = evaluated();
  const good = works(report).join("\n");
  assert.match(good, /within 1\.05[^-]*- keep 0\.5: H2O 1\.010 \(1\.010 to 1\.010\)\n {2}- keep 0\.1: H2O 1\.010/);
  assert.match(good, /5 % of all lost[^-]*- keep 0\.5: H2O 100 % \(100 % to 100 %\)\n/);
  assert.doesNotMatch(good, /SnapKV|L2 norm|Random \d/);
  const bad = worksNot(report).join("\n");
  assert.doesNotMatch(bad, /no method stays/);
  assert.match(bad, /at none of the sizes: SnapKV; L2 norm; Random\./);
  assert.match(bad, /wholly above 0:\n {2}- keep 0\.5: SnapKV \(0\.90 kept at the end\) \+/);
  assert.match(bad, /holding 0:\n {2}- keep 0\.5: L2 norm 0\.000 \(0\.000 to 0\.000\)/);
  assert.match(bad, /Less than half[^-]*- keep 0\.5: SnapKV \(0\.90 kept at the end\) 25 %/);
  assert.match(bad, /- L2 norm at keep 0\.1: 4 samples, least 0\.200/);
  const bytes = memory([report]);
  assert.match(bytes.works.join("\n"), /resident is at most 0\.05 above it in every cell with H2O; L2 norm; Random\./);
  assert.match(
    bytes.works.join("\n"),
    /one layer \(0\.50\) above the asked share in every cell with L2 norm; Random\./,
  );
  assert.match(bytes.worksNot.join("\n"), /end of the answer: SnapKV by up to 0\.80\./);
  assert.match(bytes.worksNot.join("\n"), /although resident is not: H2O by up to 0\.90\./);
  assert.equal(signed({ difference: -0.0001, low: -1, high: 0.5 }), "0.000 (-1.000 to +0.500)");
});

test("the page says what was refused, what is missing and what says nothing", () => {
  const page = markdown([evaluated()]);
  assert.match(page, /- \*\*Scenes\*\*: not measured yet\./);
  assert.match(page, /^Not measured yet: PrefixKV, .*Merging.*\.$/m);
  assert.match(page, /\| L2 norm \| 5\.755 \(.*\) \| refused, least 0\.200 \|/);
  assert.match(page, /Of the 9 answers that a method spoiled, 2 begin/);
  const tables = page.split("\n\n").filter((block) => block.startsWith("|"));
  // Nine grids and the times; after the prompt the asked share is met.
  assert.equal(tables.length, 10);
  assert.match(page, /After the prompt every cell of an asked size keeps exactly that share\./);
  const missed = evaluated(undefined, (line) => ({ ...line, keptShareAfterPrompt: 0.6 }));
  assert.match(markdown([missed]), /\*\*Kept after the prompt\*\*\n\n.*\n.*\n\| full cache \| 0\.600/);
  // The full cache is not set beside itself.
  const height = (rows: string): number => 2 + run.methods.length - (rows.includes("| full cache |") ? 0 : 1);
  for (const rows of tables.slice(0, 9)) assert.equal(rows.split("\n").length, height(rows), rows);
  assert.match(page, /A number of a key or value takes 32 bits\./);
  assert.match(page, /- SnapKV: `\{ method: "snapkv", keep \}`\n/);
  assert.doesNotMatch(page, /earlier release|did not choose/);
  for (const rows of tables.map((block) => block.split("\n")))
    for (const row of rows) assert.equal(row.split(" | ").length, rows[0]?.split(" | ").length, row);
  const silent = markdown([evaluated({ above: 0, right: 3 })]);
  assert.match(silent, /no better than answering without the picture/);
  assert.doesNotMatch(silent, /within 1\.05/);
  assert.throws(() => markdown([]), /needs results/);
});

test("methods are compared at equal bytes", () => {
  const points = [0.4, 0.2, 1].map((share) => ({ share, loss: 10 * share }));
  const read = [0.1, 0.2, 0.3, 0.4, 0.7, 1, 1.1].map((share) => between(points, share)?.toFixed(6));
  const found = [2, 3, 4, 7, 10].map((loss) => loss.toFixed(6));
  assert.deepEqual(read, [undefined, ...found, undefined]);
  assert.equal(between([], 0.5), undefined);
  const report = evaluated();
  assert.deepEqual(equalBytes(report, "Scenes"), []);
  const [head, , , ends, , means] = equalBytes({ ...report, promptShare: 0.5 }, "Scenes");
  assert.equal(head, "## Scenes: at equal bytes");
  // H2O holds what it was asked to keep, 0.5 and 0.1, with the same loss; the full cache's is 0.02 less per two tokens.
  assert.match(ends ?? "", /\n\| H2O \|(?: \d\.\d{3} \|){8}(?:\n|$)/);
  // SnapKV ends with 0.9 whatever it was asked to keep.
  assert.match(ends ?? "", /\n\| SnapKV \| \d+\.\d{3} \|(?: {2}\|){7}/);
  // After the prompt 0.1, at the end 0.9: 0.633 on average over an answer as long as its prompt.
  assert.match(means ?? "", /\n\| SnapKV \|(?: \d+\.\d{3} \|){3}(?: {2}\|){5}/);
});

test("the page says which figures are old", () => {
  const report = evaluated();
  const before: Evaluated = { ...report, run: { ...run, version: 1 } };
  assert.match(markdown([before]), /Of an earlier release, whose runs had version 1: easy-VQA, plain questions\. /);
});

test("scenes that did not choose the defaults are summed up by themselves", () => {
  const report = evaluated(undefined, ({ correct, ...line }) => ({ ...line, right: 2 * (correct ?? 0), objects: 2 }));
  assert.deepEqual([report.unseen?.samples, report.objects], [2, 8]);
  const knorm = report.unseen?.cells.find(({ method, keep }) => method === "knorm" && keep === 0.5);
  const all = report.cells.find(({ method, keep }) => method === "knorm" && keep === 0.5);
  // The last scene alone is wrong, and has an odd number.
  assert.deepEqual([knorm?.right?.value, all?.right?.value], [1, 0.75]);
  assert.deepEqual(knorm?.ppl?.value, Number(Math.exp((2 + 4) / 4).toPrecision(9)));
  assert.equal(report.unseen?.cells.filter(({ keep }) => keep === 0.1).length, 3);
  const page = markdown([report]);
  const [, section = ""] = page.split("## The defaults of PrefixKV, on scenes that did not choose them");
  assert.match(section, /\| method \| keep 0\.5 \| keep 0\.1 \|\n.*\n\| H2O \| 100 % \(.*\); 2\.\d+ \| 100 %.*\|\n/);
  assert.match(section, /\| L2 norm \| 100 % \(100 % to 100 %\); 4\.482 \| {2}\|/);
});

test("what is freed while generating is set beside nothing being freed", () => {
  const report = evaluated();
  const rename = (id: string): string => (id === "snapkv" ? "h2o:decode=none" : id);
  const cells = report.cells.map((cell) => ({ ...cell, method: rename(cell.method) }));
  const methods = report.run.methods.map(({ id, cache }) => ({ id: rename(id), cache }));
  const told = works({ ...report, cells, run: { ...report.run, methods } }).join("\n");
  const [h2o, snapkv] = report.cells.slice(1, 3).map(({ ppl }) => ppl?.value.toFixed(3));
  assert.match(told, new RegExp(`H2O without and with it, .* ${snapkv} and ${h2o} at 0\\.5`));
});

test("the prompt's share is its share of the positions", () => {
  // 100 bytes are 12.5 positions of 8; two tokens of answer, the last of which is not read.
  assert.equal(evaluated().promptShare, Number((1 - 8 / 100).toPrecision(9)));
});

test("stores have a table of their own, and no part in the statements about sizes", () => {
  const sizes = evaluated();
  const stores: Evaluated = {
    ...evaluated({ above: 0, right: 4 }, (line) => (line.method === "full" ? line : { ...line, effectiveBits: 5.25 })),
    grid: "stores-easy-vqa-plain",
  };
  const [alone, page] = [markdown([sizes]), markdown([sizes, stores])];
  assert.doesNotMatch(alone, /how entries are stored/);
  assert.match(page, /^## easy-VQA, plain questions: how entries are stored$/m);
  assert.match(
    page,
    /^\| H2O \| 5\.25 \| 0\.500 \| 1\.000 \| 1\.010 \(1\.010 to 1\.010\) \| .* \| 100 % \(100 % to 100 %\) \|/m,
  );
  // Refused at one of the sizes, so that there is no row of it there.
  assert.equal(page.match(/^\| L2 norm \| 5\.25 /gm)?.length, 1);
  const statements = (text: string): string => text.slice(text.indexOf("## What works"));
  assert.equal(statements(page), statements(alone));
});

test("the committed page is made of the committed figures, which are those of whole grids", async () => {
  const reports = await committed();
  const page = await readFile(new URL("../../docs/results.md", import.meta.url), "utf8");
  assert.equal(page.replaceAll("\r\n", "\n"), markdown(reports, await trained()));
  for (const { grid: name, run, cells } of reports) {
    const grid = grids.find((each) => each.name === (name ?? run.data.name));
    assert.ok(grid, name);
    assert.deepEqual(run.keeps, grid.keeps);
    assert.equal(run.data.samples, 60);
    assert.deepEqual(run.methods.slice(1), await methodsOf(grid));
    const sized = ({ cache }: { cache: unknown }): boolean =>
      [cache].flat().some((stage) => {
        const { method } = stage as { method: string };
        return table.find(({ name }) => name === method)?.budget !== "outcome";
      });
    const lines = run.methods.slice(1).map((method) => (sized(method) ? run.keeps.length : 1));
    assert.equal(
      cells.length,
      lines.reduce((sum, each) => sum + each, 1),
    );
    for (const { samples, refused } of cells) assert.equal(samples + refused, 60);
  }
});

test("the picture of kept patches has a panel for each of six methods", async () => {
  const svg = await readFile(new URL("../../docs/kept-patches.svg", import.meta.url), "utf8");
  const titles = [...svg.matchAll(/<text [^>]*>([^<]+), (\d+) %<\/text>/g)].map(([, title, share]) => [
    title,
    Number(share),
  ]);
  assert.equal(new Set(titles.map(([title]) => title)).size, 6);
  // A fifth of all positions, of which patches are the most.
  for (const [title, share] of titles) assert.ok(Number(share) > 5 && Number(share) < 25, `${title}: ${share}`);
  assert.equal(svg.match(/<use href="#picture"\/>/g)?.length, 6);
});

test("a grid in parts is one run, and parts that disagree about the full cache are refused", () => {
  const part = (id: string, above = 0): Results => {
    const quality = [...cell("full", 1, { above, right: 4 }), ...cell(id, 0.5, { above: 1, right: 3 })];
    const time = {
      imageMs: 0,
      visionMs: 0,
      prefillMs: 1,
      decodeMs: 1,
      firstTokenMs: 1,
      tokensPerSecond: 9,
      engineMs: 2,
      wallMs: 3,
    };
    const timings = quality.map(({ method, keep, sample }) => ({ method, keep, sample, ...time }));
    return { run: { ...run, methods: ["full", id].map((id) => ({ id, cache: { method: id } })) }, quality, timings };
  };
  const whole = together("scenes", [part("h2o"), part("snapkv")]);
  assert.deepEqual(
    whole.run.methods.map(({ id }) => id),
    ["full", "h2o", "snapkv"],
  );
  assert.deepEqual(
    whole.quality.map(({ method }) => method),
    ["full", "h2o", "snapkv"].flatMap((method) => answers.map(() => method)),
  );
  assert.deepEqual(
    whole.timings.map(({ method, sample }) => [method, sample]),
    whole.quality.map(({ method, sample }) => [method, sample]),
  );
  assert.throws(
    () => together("scenes", [part("h2o"), part("snapkv", 0.5)]),
    /other lines beside snapkv than beside h2o/,
  );
});

test("methods that are added to a grid leave it as if all had been measured together", () => {
  const whole = results(undefined, (line) => ({ ...line, right: 2 * (line.correct ?? 0), objects: 2 }));
  const only = (ids: readonly string[]): Results => {
    // A method after the other, as grids are measured.
    const lines = <Line extends { method: string }>(all: readonly Line[]): Line[] =>
      ids.flatMap((id) => all.filter(({ method }) => method === id));
    return {
      run: { ...run, methods: run.methods.filter(({ id }) => ids.includes(id)) },
      quality: lines(whole.quality),
      timings: lines(whole.timings),
    };
  };
  const before: Evaluated = {
    grid: "scenes",
    commits: ["a"],
    ...sumUp(only(["full", "h2o", "snapkv", "random"]), samples, origin),
  };
  const ids = run.methods.map(({ id }) => id);
  const fresh = { results: only(["full", "knorm", "random"]), commits: ["b"], samples, origin };
  assert.deepEqual(added(before, fresh, ids), {
    grid: "scenes",
    commits: ["a", "b"],
    ...sumUp(only(ids), samples, origin),
  });
  const other = results({ above: 0.5, right: 4 }).quality.slice(0, answers.length);
  const changed = { ...fresh.results, quality: [...other, ...fresh.results.quality.slice(answers.length)] };
  assert.throws(() => added(before, { ...fresh, results: changed }, ids), /full cache is no longer the committed one/);
});
