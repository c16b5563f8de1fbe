import assert from "node:assert/strict";
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { DOMParser, type Element } from "@xmldom/xmldom";
import { OptionError } from "../../ts/errors.ts";
import { describeReport, evalReport } from "../../ts/report/index.ts";
import { info, trace } from "../kit/fake_native.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { describeScene, evalFolder, evaluation } from "./made.ts";

const folder = temporaryFolder("report");

const timeout = { timeout: 120_000 };

/** Every chart of a page: its name and its HTML. */
function figures(html: string): Map<string, string> {
  const parts = [...html.matchAll(/<figure data-chart="([^"]+)".*?<\/figure>/gs)];
  return new Map(parts.map(([whole, id = ""]) => [id, whole]));
}

/** The elements of an SVG; throws when it is not well-formed. */
function parse(svg: string): Element[] {
  const document = new DOMParser().parseFromString(svg, "image/svg+xml");
  return [...document.getElementsByTagName("*")];
}

function checkPage(html: string, ids: readonly string[]): void {
  const found = figures(html);
  assert.deepEqual([...found.keys()], ids);
  for (const [id, figure] of found) {
    assert.match(figure, /<table [^>]*>.*<tbody><tr>.*<\/tr><\/tbody>/s, `${id} has no table`);
    assert.match(figure, /<svg [^>]*viewBox="[-\d.]+ [-\d.]+ [\d.]+ [\d.]+"/, id);
    for (const [svg] of figure.matchAll(/<svg .*?<\/svg>/gs)) {
      assert.match(svg, /^<svg [^>]*role="img"[^>]*aria-label="[^"]+"/, id);
      assert.match(svg, /<title>[^<]+<\/title><desc>[^<]+<\/desc>/, id);
      assert.doesNotMatch(svg, /NaN|undefined|Infinity/, id);
      parse(svg);
    }
  }
  // Nothing is fetched: the only addresses are names of XML and data.
  const addresses = [...html.replace(/data:image[^"]*/g, "").matchAll(/(?:https?:)?\/\/[\w.]+/g)].map(
    ([address]) => address,
  );
  assert.deepEqual([...new Set(addresses)], ["http://www.w3.org"]);
  for (const [, target = ""] of html.matchAll(/(?:href|src)="([^"]*)"/g)) assert.match(target, /^(data:|#)/);
  assert.doesNotMatch(html, /<link rel="stylesheet"|@import|url\(/);
}

test("the page of an evaluation has every chart with its table", timeout, async () => {
  const { html, charts } = await evaluation();
  const ids = ["ppl", "rouge", "agreement", "kl", "right"].map((name) => `quality-${name}`);
  const kept = [0.02, 0.1, 0.2, 0.5, 0.8].map((keep) => `kept-${keep}`);
  checkPage(html, [...ids, ...kept, "speed-decode", "speed-ratio", "speed-first-token"]);
  assert.deepEqual(
    charts.map(({ name }) => name),
    [...figures(html).keys()].map((id) => `${id}.svg`),
  );
  for (const { svg } of charts) {
    parse(svg);
    assert.match(svg, /prefers-color-scheme:dark/);
  }
  const table = figures(html).get("quality-ppl") ?? "";
  const { cells } = JSON.parse(await readFile(join(evalFolder, "summary.json"), "utf8"));
  const measured = cells.filter((row: { ppl?: unknown }) => row.ppl !== undefined);
  assert.equal([...(table.split("<tbody>")[1] ?? "").matchAll(/<tr>/g)].length, measured.length);
  assert.match(html, /streaming at 0.02 \(3\)/);
  // Perplexities from 1.07 to hundreds need a log scale, shares do not.
  assert.match(figures(html).get("quality-ppl") ?? "", /log scale/);
  assert.doesNotMatch(figures(html).get("quality-rouge") ?? "", /log scale/);
});

test("a method has one colour and one mark in all charts of a page", timeout, async () => {
  const { html } = await evaluation();
  for (const method of ["prefixkv", "streaming"]) {
    const colors = [...figures(html).values()].flatMap((figure) =>
      [
        ...figure.matchAll(
          new RegExp(`fill="(var\\(--series-\\d\\))"[^>]*>(?:(?!</g>).)*</g><g [^>]*><text[^>]*>${method}</text>`, "g"),
        ),
      ].map(([, color]) => color),
    );
    assert.ok(colors.length >= 10, `${method}: ${colors.length}`);
    assert.equal(new Set(colors).size, 1, method);
  }
});

test("the page of a picture shows what each layer keeps", timeout, async () => {
  const { input, report } = await describeScene();
  checkPage(report.html, ["kept-patches", "importance-patches", "cumulative", "kept-per-layer", "lives", "memory"]);
  const svg = /<svg .*?<\/svg>/s.exec(figures(report.html).get("kept-patches") ?? "")?.[0] ?? "";
  const groups = parse(svg).filter((element) => element.hasAttribute("data-frame"));
  assert.equal(groups.length, 20);
  for (const [index, group] of groups.entries()) {
    const { trace: run } = input.runs[Math.floor(index / 10)] ?? {};
    assert.ok(run);
    const start = run.spans.find(({ modality }) => modality.type === "image")?.start ?? -1;
    const kept = (run.layers[index % 10]?.kept ?? []).map(
      ({ positions }) => new Set(positions.map((position) => position - start)),
    );
    const whole = Array.from({ length: 144 }, (_, patch) => patch).filter((patch) =>
      kept.every((own) => own.has(patch)),
    );
    const paths = [...group.getElementsByTagName("path")];
    const edges = paths.find((path) => path.getAttribute("stroke") === "#fff")?.getAttribute("d") ?? "";
    assert.deepEqual(squares(edges), whole, `frame ${group.getAttribute("data-frame")}`);
    // Together the dark ones are all others.
    const dark = paths.filter((path) => path.getAttribute("fill") !== "none");
    const gone = dark.flatMap((path) => squares(path.getAttribute("d") ?? "")).sort((a, b) => a - b);
    assert.deepEqual(
      gone,
      Array.from({ length: 144 }, (_, patch) => patch).filter((patch) => !whole.includes(patch)),
    );
  }
});

/** The patches of a path over a picture of 168 x 168 pixels and 12 x 12 patches. */
function squares(path: string): number[] {
  return [...path.matchAll(/M([\d.]+) ([\d.]+)h14v14h-14z/g)].map(([, x, y]) => (Number(y) / 14) * 12 + Number(x) / 14);
}

test("charts of a picture stand alone, one file per frame", timeout, async () => {
  const { report } = await describeScene();
  const names = report.charts.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  assert.equal(names.filter((name) => name.startsWith("kept-patches-")).length, 20);
  for (const { name, svg } of report.charts) {
    const elements = parse(svg);
    assert.ok(
      elements
        .filter((element) => element.hasAttribute("data-frame"))
        .every((element, _, all) => {
          return element.getAttribute("data-frame") === all[0]?.getAttribute("data-frame");
        }),
      name,
    );
    // A file of its own has the picture in it.
    if (name.includes("patches"))
      assert.ok(
        elements.some(({ localName }) => localName === "image"),
        name,
      );
    assert.doesNotMatch(svg, /<use /, name);
  }
});

test("a picture that is padded or cropped has its patches where the model saw them", async () => {
  const [picture] = trace.images;
  assert.ok(picture);
  const area = { x: -50, y: 0, width: 300, height: 300 };
  const padded = { ...trace, images: [{ ...picture, width: 200, height: 300, area }] };
  const bytes = new Uint8Array([0x89, 0x50]);
  const input = { info, prompt: "a & <b>", pictures: [{ name: "x<.png", bytes }] };
  const { html } = await describeReport({ ...input, runs: [{ label: "full", trace: padded }] });
  assert.match(html, /viewBox="-50 0 300 300"/);
  assert.match(html, /M-50 0h25v25h-25z/);
  assert.match(html, /added to make a square/);
  const { html: whole } = await describeReport({ ...input, runs: [{ label: "full", trace }] });
  assert.doesNotMatch(whole, /added to make a square/);
  assert.ok(html.includes("a &amp; &lt;b&gt;") && html.includes("x&lt;.png") && !html.includes("x<.png"));
});

test("a prompt without pictures or attention scores leaves charts out, not half", async () => {
  const layers = trace.layers.map((layer) => ({ ...layer, cumulative: null, retained: null }));
  const text = {
    ...trace,
    mass: false,
    score: "recency",
    ranking: "the position itself: later is better",
    threshold: null,
    images: [],
    layers,
  };
  const { html } = await describeReport({
    info,
    prompt: "a",
    pictures: [],
    runs: [{ label: "streaming", trace: text }],
  });
  checkPage(html, ["kept-per-layer", "lives", "memory"]);
  await assert.rejects(
    describeReport({ info, prompt: "a", pictures: [], runs: [] }),
    /`runs` of describeReport is empty; give at least one/,
  );
});

test("a folder that is no evaluation is refused with the file and the field", async () => {
  const refused = async (change: (run: string) => Promise<void>, pattern: RegExp): Promise<void> => {
    const run = join(folder, "run");
    await cp(evalFolder, run, { recursive: true });
    await change(run);
    await assert.rejects(evalReport(run), (error) => error instanceof OptionError && pattern.test(error.message));
    await rm(run, { recursive: true });
  };
  const summary = (cells: unknown) => (run: string) => writeFile(join(run, "summary.json"), JSON.stringify({ cells }));
  await refused((run) => rm(join(run, "run.json")), /run\.json is missing/);
  await refused((run) => writeFile(join(run, "run.json"), "{"), /run\.json is not JSON/);
  await refused(
    (run) => writeFile(join(run, "run.json"), '{"version":3}'),
    /version 3; this release reads versions 1 and 2/,
  );
  const run = JSON.parse(await readFile(join(evalFolder, "run.json"), "utf8"));
  for (const [change, pattern] of [
    [{ model: {} }, /run\.json: `model` has no text `source`/],
    [{ model: { ...run.model, layers: "10" } }, /run\.json: `model` has no number `layers`/],
    [{ data: [] }, /run\.json: `data` is no object/],
    [{ data: { name: "scenes" } }, /run\.json: `data` has no number `samples`/],
    [{ methods: {} }, /has no list `methods`/],
    [{ methods: [null] }, /run\.json: methods\[0\] is no object/],
    [{ methods: [{ id: 7 }] }, /run\.json: methods\[0\] has no text `id`/],
    [{ keeps: "0.5" }, /has no list of numbers `keeps`/],
    [{ keeps: [null] }, /has no list of numbers `keeps`/],
  ] as const)
    await refused((folder) => writeFile(join(folder, "run.json"), JSON.stringify({ ...run, ...change })), pattern);
  await refused(summary([]), /has no cells/);
  await refused(summary([{ method: "h2o", samples: 3 }]), /cells\[0\] has no number `keptShare`/);
  await refused(
    summary([{ method: "h2o", samples: 1, keptShare: 1, residentShare: 1, ppl: { value: "1" } }]),
    /cells\[0\]\.ppl/,
  );
  await refused(summary({}), /no list `cells`/);
});

test("speeds are drawn with their quartiles, or not at all", timeout, async () => {
  const { html } = await evaluation();
  const shown = figures(html).get("speed-decode") ?? "";
  assert.match(shown, /<th scope="col">tokens per second, median<\/th><th scope="col">quartiles<\/th>/);
  const { cells } = JSON.parse(await readFile(join(evalFolder, "summary.json"), "utf8"));
  const h2o = cells.find((cell: { method: string; keep: number }) => cell.method === "h2o" && cell.keep === 0.5);
  assert.ok(h2o.tokensPerSecond.low <= h2o.tokensPerSecond.median && h2o.tokensPerSecond.rounds === 3);
  assert.match(
    shown,
    new RegExp(`h2o at keep 0\\.5: ${Number(h2o.tokensPerSecond.median.toPrecision(3))} \\(quartiles`),
  );
  assert.match(html, /A round is one sample: each method at each size once, in an order that moves on/);

  const altered = async (
    change: (summary: { cells: Record<string, unknown>[] }, run: Record<string, unknown>) => void,
  ) => {
    const copy = join(folder, "altered");
    await cp(evalFolder, copy, { recursive: true });
    const read = async (name: string) => JSON.parse(await readFile(join(copy, name), "utf8"));
    const [summary, run] = [await read("summary.json"), await read("run.json")];
    change(summary, run);
    await writeFile(join(copy, "summary.json"), JSON.stringify(summary));
    await writeFile(join(copy, "run.json"), JSON.stringify(run));
    return (await evalReport(copy)).html;
  };
  const old = await altered(({ cells }, run) => {
    run.version = 1;
    for (const cell of cells) Object.assign(cell, { tokensPerSecond: 30, firstTokenMs: 200, speedup: undefined });
  });
  assert.ok(![...figures(old).keys()].some((id) => id.startsWith("speed")));
  assert.match(old, /Speeds are not shown: an earlier release measured them/);
  const few = await altered(({ cells }) => {
    for (const cell of cells)
      for (const name of ["tokensPerSecond", "speedup", "firstTokenMs"])
        if (cell[name]) Object.assign(cell[name], { rounds: 2 });
  });
  assert.ok(![...figures(few).keys()].some((id) => id.startsWith("speed")));
  assert.match(few, /Speeds are not shown: they need 3 rounds or more, found 2\./);
});

test("a page of an evaluation counts the methods that were asked for", timeout, async () => {
  assert.match((await evaluation()).html, /tiny-llava, 5 methods at 5 sizes beside the full cache, 3 samples/);
  const copy = join(folder, "one");
  await cp(evalFolder, copy, { recursive: true });
  const run = JSON.parse(await readFile(join(copy, "run.json"), "utf8"));
  for (const [methods, keeps, samples, words] of [
    [2, [0.5], 1, "1 method at 1 size beside the full cache, 1 sample"],
    [1, [0.5], 2, "the full cache alone, 2 samples"],
    [5, [0.5, 0.2], 2, "4 methods at 2 sizes beside the full cache, 2 samples"],
  ] as const) {
    const data = { ...run.data, samples };
    await writeFile(
      join(copy, "run.json"),
      JSON.stringify({ ...run, keeps, data, methods: run.methods.slice(0, methods) }),
    );
    assert.ok((await evalReport(copy)).html.includes(`tiny-llava, ${words}<`), words);
  }
});

test("marks say their size, and shares when they are of", timeout, async () => {
  const { html } = await evaluation();
  for (const name of ["ppl", "rouge", "agreement", "kl", "right"]) {
    const figure = figures(html).get(`quality-${name}`) ?? "";
    for (const keep of [0.1, 0.2, 0.5, 0.8]) {
      assert.match(figure, new RegExp(`<title>h2o at keep ${keep}: `), `${name} ${keep}`);
      assert.match(figure, new RegExp(`<text[^>]*>${keep}</text>`), `${name} ${keep}`);
    }
    assert.match(figure, /resident cache at the end \(% of the full cache\)/);
  }
  assert.match(figures(html).get("kept-0.5") ?? "", /At the end of the reference answer/);
  const described = (await describeScene()).report.html;
  assert.match(described, /cache at the end of the answer/);
  assert.match(figures(described).get("kept-per-layer") ?? "", /keeps after the prompt/);
  assert.match(figures(described).get("memory") ?? "", /<title>h2o, at token \d+: /);
});

test("a method without attention says so in the place of its curve", timeout, async () => {
  const layers = trace.layers.map((layer) => ({ ...layer, cumulative: null, retained: null }));
  const without = {
    ...trace,
    mass: false,
    score: "recency",
    ranking: "the position itself: later is better",
    threshold: null,
    layers,
  };
  const pictures = [{ name: "x.png", bytes: new Uint8Array([0x89, 0x50]) }];
  const runs = [
    { label: "prefixkv 0.5", trace },
    { label: "streaming 0.5", trace: without },
  ];
  const { html, charts } = await describeReport({ info, prompt: "a", pictures, runs });
  const figure = figures(html).get("cumulative") ?? "";
  const svg = /<svg .*?<\/svg>/s.exec(figure)?.[0] ?? "";
  const frames = new Map<string, string>();
  for (const element of parse(svg)) {
    const frame = element.getAttribute("data-frame");
    if (frame !== null) frames.set(frame, `${frames.get(frame) ?? ""} ${element.textContent}`);
  }
  assert.deepEqual([...frames.keys()].sort(), ["0.0", "0.1", "1.0", "1.1"]);
  for (const frame of ["1.0", "1.1"])
    assert.match((frames.get(frame) ?? "").replace(/\s+/g, " "), /streaming 0\.5 has no curve: ?it ranks/);
  assert.match(figure, /<td>streaming 0\.5<\/td><td class="n">0<\/td>.*no attention/s);
  const file = charts.find(({ name }) => name === "cumulative-1-layer-01.svg");
  assert.match(file?.svg ?? "", /has no curve/);
  // Where nobody has one, the words stand above the charts.
  const alone = await describeReport({ info, prompt: "a", pictures, runs: runs.slice(1) });
  assert.match(
    alone.html,
    /streaming 0\.5 has no curve: it ranks entries by the position itself: later is better, which is no attention/,
  );
  assert.ok(!figures(alone.html).has("cumulative"));
});

test("control characters of names and answers make no page and no picture unreadable", timeout, async () => {
  const evil = "\x1b[2J\0\x9b\ud800 <b>";
  const pictures = [{ name: `${evil}.png`, bytes: new Uint8Array([0x89, 0x50]) }];
  const runs = ["a", "b"].map((name) => ({ label: `${name} ${evil}`, trace: { ...trace, text: evil } }));
  const { html, charts } = await describeReport({
    info: { ...info, source: `/models/${evil}` },
    prompt: evil,
    pictures,
    runs,
  });
  for (const text of [html, ...charts.map(({ svg }) => svg)])
    for (const character of text)
      assert.ok(/[\n\t\x20-\x7e\u00a0-\ufffd]|[\u{10000}-\u{10ffff}]/u.test(character), JSON.stringify(character));
  for (const { svg } of charts) parse(svg);
  assert.ok(html.includes("\ufffd[2J\ufffd\ufffd\ufffd &lt;b&gt;"));
});
