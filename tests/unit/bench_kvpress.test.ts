// The page of `npm run bench:kvpress` from figures that nobody has measured.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Beside, markdown } from "../../bench/kvpress.ts";
import { origin } from "../kit/origin.ts";

const samples = (prefill: number[], decode: number[], mebibytes: number) => ({
  prefill,
  decode,
  resident: mebibytes * (1 << 20),
});

test("the page sets both sides beside each other and each beside its own plain cache, round by round", () => {
  const measured: Beside[] = [
    { name: "full", press: "", ours: samples([100, 200], [4, 4], 90), theirs: samples([200, 400], [8, 16], 88) },
    {
      name: "snapkv",
      press: "SnapKVPress(0.5)",
      ours: samples([110, 220], [2, 2], 46),
      theirs: samples([220, 880], [8, 8], 44),
    },
  ];
  const report = { origin, threads: "2", rounds: 2, steps: 32, context: 2048, load: [0.2, 2], measured };
  const page = markdown(report);
  assert.match(page, /^\| full \| no press \| 0\.500 ±0 % \| 0\.375 ±17 % \| 90\.0 \| 88\.0 \|$/m);
  assert.match(page, /^\| snapkv \| `SnapKVPress\(0\.5\)` \| 0\.375 ±17 % \| 0\.250 ±0 % \| 46\.0 \| 44\.0 \|$/m);
  assert.match(page, /^\| snapkv \| 1\.10 ±0 % \| 1\.65 ±17 % \| 0\.500 ±0 % \| 0\.750 ±17 % \|$/m);
  assert.doesNotMatch(page, /Other programs/);
  assert.match(markdown({ ...report, load: [3.5, 4] }), /load 3\.50 before and 4\.00 after/);
  assert.throws(() => markdown({ ...report, measured: [] }));
});
