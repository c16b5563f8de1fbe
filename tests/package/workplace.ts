// The packages, made once and installed into folders that know nothing of this repository. The steps are slow, so that the first
// runner whose steps all succeed leaves their outcomes in .cache/pack for the others, under a hash of everything that goes in.
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { root } from "../runtimes/spawn.ts";

export interface Outcome {
  code: number;
  out: string;
  err: string;
}

interface Shell {
  runtime(name: "bun" | "deno" | "node"): string;
  hashFiles(files: string[]): string;
  systemPath: string;
  which(name: string): string | undefined;
}
const shell = (await import(new URL("../../scripts/shell.mjs", import.meta.url).href)) as Shell;

export const runtime: Shell["runtime"] = shell.runtime;
export const which: Shell["which"] = shell.which;
export const npm: string = shell.which("npm") ?? "npm";
export const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  version: string;
  files: string[];
  exports: Record<string, string | { types: string; default: string }>;
};
export const tarballs: string[] = ["prefixkv", "prefixkv-linux-x64-gnu"].map((name) => {
  return join(root, ".cache", "pack", "release", `${name}-${manifest.version}.tgz`);
});

const key = shell.hashFiles(
  [
    "package.json",
    "README.md",
    "CHANGELOG.md",
    "docs",
    "ts",
    "scripts",
    "models",
    "calibrations",
    "native",
    "tests/package",
  ]
    .flatMap(filesIn)
    .sort(),
);
const kept = join(root, ".cache", "pack", `outcomes-${key.slice(0, 16)}.json`);
const known = existsSync(kept) ? (JSON.parse(readFileSync(kept, "utf8")) as Record<string, Outcome>) : undefined;
const outcomes: Record<string, Outcome> = {};
let place: string | undefined;

function filesIn(name: string): string[] {
  if (statSync(join(root, name)).isFile()) return [name];
  const inside = readdirSync(join(root, name), { recursive: true }).map((file) => join(name, String(file)));
  return inside.filter((file) => statSync(join(root, file)).isFile());
}

/** A new folder outside of the repository, whose node_modules no program there can find. */
export function folder(name: string): string {
  place ??= mkdtempSync(join(tmpdir(), "prefixkv-pack-"));
  mkdirSync(join(place, name), { recursive: true });
  return join(place, name);
}

/** The outcome of a step: from the runner before, or by doing it. */
export async function step(name: string, work: () => Promise<Outcome>): Promise<Outcome> {
  const outcome = known?.[name] ?? outcomes[name] ?? (await work());
  outcomes[name] = outcome;
  return outcome;
}

/** Leaves the outcomes to the next runner when all are good, and removes the folders. */
export function finish(): void {
  const done = Object.values(outcomes);
  if (!known && done.length > 0 && done.every(({ code }) => code === 0)) {
    mkdirSync(dirname(kept), { recursive: true });
    writeFileSync(kept, JSON.stringify(outcomes));
  }
  if (place) rmSync(place, { recursive: true, force: true });
}

/** Runs a program to its end. */
export function run(command: string, args: string[], cwd: string, env: Record<string, string> = {}): Promise<Outcome> {
  const child = spawn(command, args, {
    cwd,
    env: {
      ...process.env,
      PATH: [join(root, "node_modules", ".bin"), shell.systemPath].join(delimiter),
      NO_COLOR: "1",
      RAYON_NUM_THREADS: process.env.RAYON_NUM_THREADS ?? "2",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const outcome: Outcome = { code: 1, out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    outcome.out += chunk;
  });
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    outcome.err += chunk;
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...outcome, code: code ?? 1 }));
  });
}
