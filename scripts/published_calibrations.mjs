// `node scripts/published_calibrations.mjs FOLDER`: writes calibrations/ from the configurations that the PrefixKV repository
// (THU-MIG/PrefixKV) publishes: prefixkv_MODEL_RATIO.json, whose ratio is the evicted share of the whole and whose content is the
// evicted share of every layer.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, root } from "./shell.mjs";

const folder = process.argv[2] ?? fail("usage: node scripts/published_calibrations.mjs FOLDER", 2);
const models = [
  { name: "llava-1.5-7b", published: "llava-v1.5-7b", layers: 32, kvHeads: 32 },
  { name: "llava-1.5-13b", published: "llava-v1.5-13b", layers: 40, kvHeads: 40 },
];
const tenths = [1, 2, 3, 4, 5, 6, 7, 8, 9];

for (const { name, published, layers, kvHeads } of models) {
  const rows = tenths.map((tenth) => {
    const file = join(folder, `prefixkv_${published}_${(10 - tenth) / 10}.json`);
    const evicted = JSON.parse(readFileSync(file, "utf8"));
    if (evicted.length !== layers) fail(`${file} has ${evicted.length} layers, expected ${layers}`);
    return `    ${JSON.stringify({ keep: tenth / 10, retained: evicted.map((share) => 1 - share) })}`;
  });
  const head = {
    format: "prefixkv-calibration",
    version: 1,
    model: { name, layers, kvHeads, headDim: 128 },
    published: true,
    origin: "configurations of the PrefixKV repository, THU-MIG/PrefixKV, MIT licence",
  };
  const start = JSON.stringify(head, null, 2).replace(/\n\}$/, "");
  writeFileSync(join(root, "calibrations", `${name}.json`), `${start},\n  "rows": [\n${rows.join(",\n")}\n  ]\n}\n`);
}
