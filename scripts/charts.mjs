// Bundles the parts of the chart library and its DOM that the published package takes along, as one file, so that it depends on no
// other package.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fail, root, runtime } from "./shell.mjs";

const plot = "@observablehq/plot";
const dom = "@xmldom/xmldom";
const source = `export * from "${plot}";\nexport { DOMImplementation, DOMParser, XMLSerializer } from "${dom}";\n`;

/** Bundles both into `dist/report/vendor.js` of a package's folder, beside their licences, and has the reports take it. */
export function bundleCharts(folder) {
  const cache = join(root, ".cache", "charts");
  mkdirSync(cache, { recursive: true });
  const entry = join(cache, "entry.mjs");
  writeFileSync(entry, source);
  const vendor = join(folder, "dist", "report", "vendor.js");
  const args = ["build", entry, "--target=node", "--format=esm", "--minify", `--outfile=${vendor}`];
  const { status, stderr } = spawnSync(runtime("bun"), args, { encoding: "utf8" });
  if (status !== 0) fail(`bun ${args.join(" ")} failed:\n${stderr}`);
  writeFileSync(join(folder, "dist", "report", "vendor.LICENSES.txt"), licences());
  const drawing = join(folder, "dist", "report", "draw.js");
  const text = readFileSync(drawing, "utf8");
  const taken = text
    .replaceAll(`import("${plot}")`, 'import("./vendor.js")')
    .replaceAll(`import("${dom}")`, 'import("./vendor.js")');
  if (taken.split('import("./vendor.js")').length !== 3)
    fail("dist/report/draw.js imports other things than it used to");
  writeFileSync(drawing, taken);
}

/** The licences of both and of all that they bring. */
function licences() {
  const packages = new Map();
  const add = (name, from) => {
    if (packages.has(name)) return;
    const home = homeOf(name, from);
    const { version, license, dependencies = {} } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
    const file = readdirSync(home).find((file) => /^licen[cs]e/i.test(file));
    const text = file ? readFileSync(join(home, file), "utf8").trim() : `Licence: ${license}`;
    packages.set(name, `${name} ${version}\n\n${text}`);
    for (const dependency of Object.keys(dependencies)) add(dependency, home);
  };
  for (const name of [plot, dom]) add(name, root);
  const line = `\n\n${"-".repeat(80)}\n\n`;
  return `vendor.js holds code of these packages.${line}${[...packages.values()].join(line)}\n`;
}

function homeOf(name, from) {
  for (const folder of createRequire(join(from, "package.json")).resolve.paths(name) ?? []) {
    if (existsSync(join(folder, name, "package.json"))) return join(folder, name);
  }
  return fail(`${name} is not installed; run \`npm ci\``);
}
