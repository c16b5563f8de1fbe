// `npm run readme`: draws docs/kept.svg, the picture of the README: what each layer keeps for a question, from a report.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { prefixkv } from "./cli.mjs";
import { fail, root } from "./shell.mjs";

const perRow = 5;
const side = 168;
const step = side + 8;
const folder = mkdtempSync(join(tmpdir(), "prefixkv-readme-"));
try {
  const picture = join("data", "scenes", "scene-000.png");
  const asked = ["--prompt", "What color is the star?", "--method", "prefixkv", "--keep", "0.2"];
  const code = await prefixkv(["describe", picture, ...asked, "--report", join(folder, "page.html"), "--svg", folder]);
  if (code !== 0) fail("the report was not made", code);
  const files = readdirSync(folder)
    .filter((name) => name.startsWith("kept-patches-"))
    .sort();
  const layers = files.map((name, layer) => {
    const [x, y] = [(layer % perRow) * step, Math.floor(layer / perRow) * step];
    const place = `<svg x="${x}" y="${y}" width="${side}" height="${side}" `;
    return readFileSync(join(folder, name), "utf8").trim().replace("<svg ", place);
  });
  const rows = Math.ceil(layers.length / perRow);
  const box = `0 0 ${perRow * step - 8} ${rows * step - 8}`;
  const label =
    "A picture ten times, once for each layer: patches that stay in its cache are light, most of them on the shapes";
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${box}" role="img" aria-label="${label}">`;
  writeFileSync(join(root, "docs", "kept.svg"), `${head}\n${layers.join("\n")}\n</svg>\n`);
} finally {
  rmSync(folder, { recursive: true });
}
