// Which machine and which program a figure is of. No host name and no path: results are published.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { about } from "../ts/index.ts";

export interface Machine {
  slug: string;
  cpu: string;
  cores: number;
  features: string[];
  platform: string;
}

export interface Origin {
  date: string;
  commit: string;
  /** Files of the core, the library or the benches that differ from the commit. */
  changed: boolean;
  machine: Machine;
  versions: Record<string, string>;
}

const root = fileURLToPath(new URL("../", import.meta.url));
const classes = ["avx512f", "avx2", "avx", "sve", "neon"];

/** A name such as `2c-amd-epyc-avx2`. */
export function slug(cpu: string, cores: number, features: readonly string[]): string {
  const model = cpu
    .replace(/\((?:r|tm)\)/gi, " ")
    .replace(/@.*$/, " ")
    .replace(/\b(?:cpu|processor|\d+-core)\b/gi, " ")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
  return [`${cores}c`, model || "unknown", classes.find((name) => features.includes(name)) ?? "portable"].join("-");
}

export async function origin(versions: Record<string, string> = {}): Promise<Origin> {
  const { cpu: features, version } = await about();
  const cores = cpus();
  const cpu = cores[0]?.model.trim() ?? "unknown";
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: git("rev-parse", "--short=10", "HEAD"),
    changed: git("status", "--porcelain", "--", "crates", "ts", "bench", ":!bench/results", "Cargo.lock") !== "",
    machine: {
      slug: slug(cpu, cores.length, features),
      cpu,
      cores: cores.length,
      features,
      platform: `${process.platform}-${process.arch}`,
    },
    versions: { prefixkv: version, bun: process.versions.bun ?? "", ...locked("candle-core", "gemm"), ...versions },
  };
}

/** Where the results of this machine go; a quick run proves only that the benches work. */
export function resultsFolder(quick: boolean): URL {
  return new URL(quick ? "../.cache/bench/quick/" : "results/", import.meta.url);
}

/** Keeps a report as `<machine>[-name].json` and its page as `.md`, and shows the page. */
export async function keep(name: string, quick: boolean, report: { origin: Origin }, page: string): Promise<void> {
  const folder = resultsFolder(quick);
  await mkdir(folder, { recursive: true });
  const file = report.origin.machine.slug + (name && `-${name}`);
  await writeFile(new URL(`${file}.json`, folder), `${JSON.stringify(report, null, 2)}\n`);
  await writeFile(new URL(`${file}.md`, folder), page);
  process.stdout.write(page);
}

export function heading(title: string, origin: Origin): string {
  const { machine, commit, changed, date, versions } = origin;
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    `# ${title}`,
    "",
    `${machine.cpu}, ${machine.cores} cores, ${machine.features.join(" ") || "no SIMD"}, ${machine.platform}; ${date}, ` +
      `commit ${commit}${changed ? " with changes" : ""}; ${names.join(", ")}.`,
  ].join("\n");
}

function git(...args: string[]): string {
  try {
    return execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "unknown";
  }
}

function locked(...crates: string[]): Record<string, string> {
  const lock = readFileSync(new URL("../Cargo.lock", import.meta.url), "utf8");
  const versions = crates.map((crate) => [crate, lock.match(`name = "${crate}"\nversion = "([^"]+)"`)?.[1] ?? ""]);
  return Object.fromEntries(versions);
}
