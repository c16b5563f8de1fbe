import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bundled } from "../../ts/bundled.mjs";
import { ModelError } from "../../ts/errors.ts";
import { cudaPackages } from "../../ts/native/cuda.ts";
import { embeddedModel, packageFile, unpack } from "../../ts/package_files.ts";
import { root } from "../runtimes/spawn.ts";

interface Platform {
  name: string;
  built: boolean;
  cuda?: boolean;
}
const script = (name: string) => import(new URL(`../../scripts/${name}`, import.meta.url).href);
const { cudaManifest, platforms, mainManifest } = (await script("platforms.mjs")) as {
  platforms: Platform[];
  cudaManifest(platform: Platform, manifest: unknown): Record<string, unknown>;
  mainManifest(manifest: unknown): { optionalDependencies: Record<string, string> };
};
const { glibcFloor, compareVersions } = (await script("glibc.mjs")) as {
  glibcFloor(bytes: Buffer): string | undefined;
  compareVersions(one: string, other: string): number;
};
const { addon, triple } = (await script("build.mjs")) as { addon: string; triple(): string };

const read = (name: string) => readFileSync(join(root, name), "utf8");
const page = read("docs/install.md");
const manifest = JSON.parse(read("package.json"));

test("the table of platforms, the binding and the page name the same packages", () => {
  const names = platforms.map(({ name }) => name).sort();
  const required = [...read("ts/native/binding.cjs").matchAll(/require\("@prefixkv\/([^"]+)"\)/g)];
  assert.deepEqual(required.map(([, name]) => name).sort(), names);
  const rows = [...page.matchAll(/^\| `@prefixkv\/([^`]+)` \|[^|]*\| ((?:not )?built[^|]*) \|$/gm)];
  assert.deepEqual(rows.map(([, name]) => name).sort(), names);
  for (const { name, built } of platforms) {
    const [, , state = ""] = rows.find((row) => row[1] === name) ?? [];
    assert.equal(state.startsWith("built and tested"), built, `${name}: ${state}`);
  }
});

test("the published package depends on the platforms that are built, at its own version", () => {
  const built = platforms.filter((platform) => platform.built).map(({ name }) => `@prefixkv/${name}`);
  assert.deepEqual(Object.keys(mainManifest(manifest).optionalDependencies), built);
  assert.deepEqual(new Set(Object.values(mainManifest(manifest).optionalDependencies)), new Set([manifest.version]));
});

test("the packages for CUDA are those that the code looks for, and nothing depends on them", () => {
  const made = platforms.filter((platform) => platform.cuda);
  assert.deepEqual(
    made.map(({ name }) => name),
    cudaPackages,
  );
  for (const platform of made) {
    assert.ok(platform.built, `${platform.name} has no package for the CPU`);
    const { name, version, main, files, peerDependencies, os } = cudaManifest(platform, manifest);
    const file = `prefixkv.${platform.name}.cuda.node`;
    assert.deepEqual([name, version, main, files], [`@prefixkv/${platform.name}-cuda`, manifest.version, file, [file]]);
    assert.deepEqual([peerDependencies, os], [{ prefixkv: manifest.version }, ["linux"]]);
    assert.ok(page.includes(`\`${name}\``) && read("docs/cuda.md").includes(`\`${name}\``), "the pages name it");
  }
  assert.doesNotMatch(JSON.stringify(mainManifest(manifest)), /-cuda"/);
});

test("every subpath has its types and its code", () => {
  for (const [subpath, target] of Object.entries(manifest.exports as Record<string, Record<string, string> | string>)) {
    if (subpath === "./package.json") continue;
    assert.ok(typeof target === "object", subpath);
    assert.deepEqual(Object.keys(target), ["types", "default"], `${subpath}: types go first`);
    const source = (target.default ?? "").replace(/^\.\/dist\//, "ts/").replace(/\.js$/, ".ts");
    assert.ok(existsSync(join(root, source)), source);
    assert.equal(target.types, target.default?.replace(/\.js$/, ".d.ts"));
  }
});

test("bundlers see every file of the embedded model and every calibration", () => {
  for (const folder of ["models/tiny-llava", "calibrations"]) {
    const files = readdirSync(join(root, folder)).map((name) => `${folder}/${name}`);
    const wanted = files.filter((name) => statSync(join(root, name)).isFile() && !name.endsWith(".md"));
    assert.deepEqual(
      Object.keys(bundled)
        .filter((name) => name.startsWith(`${folder}/`))
        .sort(),
      wanted.sort(),
    );
  }
  // Bundlers take nothing but literals.
  const code = read("ts/bundled.mjs").replace(/\s+/g, " ");
  for (const name of Object.keys(bundled)) {
    assert.ok(code.includes(`"${name}": () => import("../${name}", { with: { type: "file" } })`), name);
  }
});

test("in the package, files are where they lie", async () => {
  assert.equal(await embeddedModel(), join(root, "models", "tiny-llava"));
  assert.equal(await packageFile("package.json"), join(root, "package.json"));
});

test("unpacking checks what is there, and says why it cannot", async () => {
  const parent = mkdtempSync(join(tmpdir(), "prefixkv-unpack-"));
  const files = new Map([
    ["config.json", new TextEncoder().encode("{}")],
    ["model.safetensors", new Uint8Array(1000)],
  ]);
  try {
    const folder = await unpack(files, parent);
    assert.deepEqual(readdirSync(folder).sort(), ["config.json", "model.safetensors"]);
    const before = statSync(join(folder, "model.safetensors")).ino;
    writeFileSync(join(folder, "config.json"), "{");
    assert.equal(await unpack(files, parent), folder);
    assert.equal(readFileSync(join(folder, "config.json"), "utf8"), "{}");
    assert.equal(statSync(join(folder, "model.safetensors")).ino, before, "what is right is not written again");
    assert.notEqual(await unpack(new Map([["config.json", new Uint8Array(1)]]), parent), folder);
    await assert.rejects(unpack(files, join(folder, "config.json")), (error: unknown) => {
      return error instanceof ModelError && error.code === "model-file" && /XDG_CACHE_HOME/.test(error.message);
    });
  } finally {
    rmSync(parent, { recursive: true });
  }
});

test("versions of glibc are read and compared as numbers", () => {
  const table = (...names: string[]) => Buffer.from(`\0${names.join("\0")}\0`, "latin1");
  assert.equal(glibcFloor(table("GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.2.5", "memcpy")), "2.34");
  assert.equal(glibcFloor(table("XGLIBC_2.40", "GLIBC_PRIVATE", "GLIBC_2.40x")), undefined);
  assert.ok(compareVersions("2.2.5", "2.2") > 0);
});

test("the native file needs no newer glibc than the page says", { skip: triple() !== "linux-x64-gnu" }, () => {
  const [, documented = ""] = page.match(/glibc (\d+\.\d+) or newer/) ?? [];
  const needed = glibcFloor(readFileSync(join(root, addon)));
  assert.ok(needed !== undefined, "a linked file names versions of glibc");
  assert.ok(compareVersions(needed, documented) <= 0, `${addon} needs ${needed}, docs/install.md says ${documented}`);
});

test("the page has the sizes that were recorded", () => {
  const recorded = JSON.parse(read("bench/results/package.json"));
  assert.equal(recorded.profile, "dist");
  assert.ok(page.includes(`glibc ${recorded.glibc} or newer`));
  const sizes = [recorded.nativeBytes];
  for (const { packedBytes, unpackedBytes } of recorded.packages) sizes.push(packedBytes, unpackedBytes);
  for (const bytes of sizes) assert.ok(page.includes(`${(bytes / 1e6).toFixed(1)} MB`), `${bytes}`);
  const told = (figure: RegExp) => Number(page.match(figure)?.[1]) * 1e6;
  const built = told(/`npm run build:native` makes one of ([\d.]+) MB/);
  const size = statSync(join(root, addon)).size;
  assert.ok(Math.abs(size - built) < 0.1 * built, `${addon} has ${size} bytes`);
  const folder = join(root, "data", "scenes");
  const scenes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  assert.ok(Math.abs(scenes - told(/([\d.]+) MB are the scenes/)) < 0.05e6, `data/scenes has ${scenes} bytes`);
});
