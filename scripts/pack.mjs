// `npm run pack [-- --release-build]`: makes the packages as they would be published, as tarballs in .cache/pack/dist, and writes
// their sizes to bench/results/package.json. With --release-build, for the tests: in .cache/pack/release, with the native file that
// is in native/ already, and nothing is written elsewhere. With --cuda also the package with the build for CUDA, which is built for
// it or, with --release-build, is in native/ already.
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { addon, buildCudaDist, buildDist, buildTs, cudaAddon, triple } from "./build.mjs";
import { bundleCharts } from "./charts.mjs";
import { pathWithNvcc } from "./cuda.mjs";
import { glibcFloor } from "./glibc.mjs";
import { install, npmCommand } from "./install.mjs";
import {
  cudaFile,
  cudaManifest,
  cudaPackageName,
  mainManifest,
  nativeFile,
  packageName,
  platformManifest,
  platforms,
} from "./platforms.mjs";
import { fail, root, systemPath, windows } from "./shell.mjs";

const args = process.argv.slice(2);
const unknown = args.find((arg) => !["--release-build", "--cuda"].includes(arg));
if (unknown) fail(`unknown option \`${unknown}\`; there are --release-build and --cuda`, 2);
const release = args.includes("--release-build");
const cuda = args.includes("--cuda") && platforms.find((platform) => platform.cuda && platform.name === triple());
if (args.includes("--cuda") && !cuda) fail(`there is no package for CUDA on ${triple()}`, 2);
const out = join(root, ".cache", "pack", release ? "release" : "dist");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

install();
const npm = npmCommand() ?? fail("npm was not found; it makes the tarballs. It comes with Node.");
const native = release ? addon : buildDist();
if (!existsSync(join(root, native))) fail(`there is no ${native}; run \`npm run build:native\``);
const gpu = cuda && (release ? cudaAddon : buildCudaDist(pathWithNvcc()));
if (gpu && !existsSync(join(root, gpu))) fail(`there is no ${gpu}; run \`npm run build:cuda\``);
buildTs();

rmSync(out, { recursive: true, force: true });
const packages = [pack("prefixkv", mainPackage)];
for (const platform of platforms.filter(({ built }) => built)) {
  packages.push(pack(platform.name, (folder) => platformPackage(folder, platform)));
}
jsrPackage(join(out, "jsr"));

const report = {
  profile: release ? "release" : "dist",
  platform: triple(),
  nativeBytes: statSync(join(root, native)).size,
  glibc: glibcFloor(readFileSync(join(root, native))) ?? null,
  packages,
};
if (!release) writeJson(join(root, "bench", "results", "package.json"), report);
if (cuda) {
  packages.push(pack(`${cuda.name}-cuda`, cudaPackage));
  report.cudaBytes = statSync(join(root, gpu)).size;
}
writeJson(join(out, "report.json"), report);
for (const { name, file, packedBytes, unpackedBytes, files } of packages) {
  const sizes = `${megabytes(packedBytes)} packed, ${megabytes(unpackedBytes)} unpacked, ${files} files`;
  process.stdout.write(`${name}: ${relative(root, join(out, file))}: ${sizes}\n`);
}
process.stdout.write(
  `native file: ${megabytes(report.nativeBytes)} (profile ${report.profile}), needs glibc ${report.glibc}\n`,
);

/** Fills a folder and has npm make its tarball. */
function pack(name, fill) {
  const folder = join(out, name);
  mkdirSync(folder, { recursive: true });
  fill(folder);
  const [command, ...first] = npm;
  const result = spawnSync(command, [...first, "pack", "--json", "--pack-destination", out], {
    cwd: folder,
    encoding: "utf8",
    shell: windows && command.endsWith(".cmd"),
    env: { ...process.env, PATH: systemPath },
  });
  if (result.status !== 0) fail(`npm pack failed for ${name}: ${result.error?.message ?? result.stderr}`);
  const [made] = JSON.parse(result.stdout);
  const { filename, size: packedBytes, unpackedSize: unpackedBytes, entryCount: files } = made;
  return { name: made.name, file: filename, packedBytes, unpackedBytes, files };
}

/** What `files` of package.json names, with a package.json for users. */
function mainPackage(folder) {
  const wanted = [...manifest.files.filter((name) => !name.startsWith("!")), "README.md", "CHANGELOG.md", "LICENSE"];
  const unwanted = manifest.files.filter((name) => name.startsWith("!")).map((name) => join(root, name.slice(1)));
  for (const name of wanted) {
    if (!existsSync(join(root, name))) fail(`package.json names ${name} in \`files\`, and there is none`);
    cpSync(join(root, name), join(folder, name), { recursive: true, filter: (from) => !unwanted.includes(from) });
  }
  bundleCharts(folder);
  writeJson(join(folder, "package.json"), mainManifest(manifest));
  for (const name of readdirSync(folder, { recursive: true })) {
    if (String(name).endsWith(".md")) unlinkMissing(folder, join(folder, String(name)));
  }
}

/** Pages link to pages that only the repository has: their text stays, without the link. */
function unlinkMissing(folder, file) {
  const text = readFileSync(file, "utf8").replace(/\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)/g, (link, label, target) => {
    const place = join(dirname(file), target);
    return place.startsWith(folder + sep) && existsSync(place) ? link : label;
  });
  writeFileSync(file, text);
}

function platformPackage(folder, platform) {
  const file = nativeFile(platform);
  const from = platform.name === triple() ? native : join(".cache", "pack", "native", file);
  if (!existsSync(join(root, from))) fail(`there is no ${from}; build it on ${platform.name} and put it there`);
  const text = `The native code of \`prefixkv\` for ${platform.name}. Install \`prefixkv\`, which depends on this.`;
  nativePackage(folder, from, file, platformManifest(platform, manifest), `# ${packageName(platform)}\n\n${text}\n`);
}

function cudaPackage(folder) {
  const text =
    `The native code of \`prefixkv\` for NVIDIA GPUs on ${cuda.name}. Install it beside \`prefixkv\`, at the same version, and load ` +
    'models with `{ device: "cuda" }`.';
  const readme = `# ${cudaPackageName(cuda)}\n\n${text}\n`;
  nativePackage(folder, gpu, cudaFile(cuda), cudaManifest(cuda, manifest), readme);
}

function nativePackage(folder, from, file, json, readme) {
  copyFileSync(join(root, from), join(folder, file));
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
  writeJson(join(folder, "package.json"), json);
  writeFileSync(join(folder, "README.md"), readme);
}

/** One module per subpath, which re-exports the npm package: JSR takes neither native files nor the CommonJS that loads them. */
function jsrPackage(folder) {
  const exports = {};
  for (const subpath of Object.keys(manifest.exports).filter((name) => !name.endsWith(".json"))) {
    const module = subpath === "." ? "./index.ts" : `${subpath}.ts`;
    const from = `npm:prefixkv@${manifest.version}${subpath.slice(1)}`;
    mkdirSync(dirname(join(folder, module)), { recursive: true });
    writeFileSync(join(folder, module), `/** ${manifest.description}.\n * @module\n */\nexport * from "${from}";\n`);
    exports[subpath] = module;
  }
  const { version, license } = manifest;
  const include = [...Object.values(exports), "README.md", "LICENSE"];
  writeJson(join(folder, "deno.json"), { name: "@prefixkv/prefixkv", version, license, exports, publish: { include } });
  for (const name of ["README.md", "LICENSE"]) copyFileSync(join(out, "prefixkv", name), join(folder, name));
}

function writeJson(file, value) {
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(2)} MB`;
}
