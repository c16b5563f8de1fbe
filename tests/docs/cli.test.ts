import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { commands } from "../../ts/cli/commands.ts";
import { cli } from "../kit/command_line.ts";
import { FakeNative } from "../kit/fake_native.ts";
import { assertDocumented } from "./cli_schema.ts";

const page = readFileSync(new URL("../../docs/cli.md", import.meta.url), "utf8");
const evalRun = fileURLToPath(new URL("../fixtures/eval-run", import.meta.url));
const scene = fileURLToPath(new URL("../../data/scenes/scene-000.png", import.meta.url));

async function print(args: string[], fake: FakeNative = new FakeNative()): Promise<Record<string, unknown>> {
  const { out } = await cli([...args, "--json"], { fake });
  return JSON.parse(out) as Record<string, unknown>;
}

test("every command prints what docs/cli.md documents", async () => {
  const fake = Object.assign(new FakeNative(), { loadError: { code: "model-file", message: "broken", details: {} } });
  assertDocumented("describe --json", await print(["describe", scene]));
  assertDocumented("score --json", await print(["score", "--prompt", "a", "--answer", "b"]));
  assertDocumented("score --json", await print(["score", "--prompt", "a", "--answer", "b", "--kept", "--kl"]));
  const folder = await mkdtemp(join(tmpdir(), "prefixkv-docs-"));
  assertDocumented("calibrate --json", await print(["calibrate", scene, "--out", join(folder, "mine.json")]));
  const fit = ["fit", "--bytes", "4MiB", "--limit", "1", "--out", join(folder, "fit.json")];
  assertDocumented("fit --json", await print(fit));
  const report = join(folder, "report.html");
  assertDocumented("describe --json", await print(["describe", scene, "--report", report]));
  assertDocumented("report --json", await print(["report", evalRun, "--out", report]));
  const out = join(folder, "results");
  const grid = ["--methods", "h2o", "--keeps", "0.5", "--limit", "1", "--out", out];
  assertDocumented("eval --json", await print(["eval", ...grid]));
  assertDocumented("compare --json", await print(["compare", out, out, "--threshold", "ppl=0.1"]));
  assertDocumented("reproduce --json", await print(["reproduce"]));
  const table = ["reproduce", "prefixkv-ablation", "--limit", "1", "--out", join(folder, "table")];
  assertDocumented("reproduce --json", await print(table));
  await rm(folder, { recursive: true });
  assertDocumented("methods --json", await print(["methods"]));
  assertDocumented("methods --json", await print(["methods", "h2o"]));
  assertDocumented("inspect --json", await print(["inspect", "/m"]));
  assertDocumented("inspect --json", await print(["inspect", "/m", "--memory", "1GiB"]));
  assertDocumented("doctor --json", await print(["doctor"]));
  assertDocumented("doctor --json", await print(["doctor"], fake));
  assertDocumented("error", await print(["describe", scene], fake));
  assertDocumented("error", await print(["describe"]));
});

test("docs/cli.md names every command and flag", () => {
  for (const { name, flags } of commands) {
    assert.ok(page.includes(`\n## ${name}\n`), name);
    for (const flag of flags) assert.match(page, new RegExp(`\`--${flag.name}[ \`]`), `--${flag.name}`);
  }
});
