import assert from "node:assert/strict";
import { copyFileSync, cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inTurn } from "../kit/turns.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { collectSnippets } from "./snippets.ts";

const folder = join(root, ".cache", "snippets");
const work = join(folder, "work");
// The README and the guides run on every runtime, the examples of the reference and of methods on one.
const snippets = collectSnippets()
  .map((snippet, index) => ({ ...snippet, stem: `snippet_${index}` }))
  .filter(({ name }, index) => /^(?:README|docs\/[^/]*)\.md/.test(name) || inTurn(index));
const outcomes = new Map<string, string | null>();
let types = "";
let noise = "";

const configuration = {
  extends: "../../tsconfig.json",
  compilerOptions: {
    noEmit: false,
    rootDir: "src",
    outDir: "out",
    declaration: false,
    isolatedDeclarations: false,
    noUnusedLocals: false,
    // The package by its own name, as users have it.
    paths: {},
    typeRoots: ["../../node_modules/@types"],
  },
  include: ["src"],
};

/** Compiles and runs everything, once; not a hook, because Bun gives hooks 5 s. */
async function prepare(): Promise<void> {
  assert.ok(
    existsSync(join(root, "dist", "index.js")),
    "the snippets import the built package: run `npm run build:ts`",
  );
  rmSync(folder, { recursive: true, force: true });
  for (const name of ["src", "out", "work"]) mkdirSync(join(folder, name), { recursive: true });
  copyFileSync(join(root, "data", "scenes", "scene-000.png"), join(work, "scene.png"));
  copyFileSync(join(root, "tests", "golden", "fixtures", "gguf", "llama-mixed.gguf"), join(work, "model.gguf"));
  const pair = join(root, "tests", "golden", "fixtures", "gguf-pairs", "llava-gqa64");
  copyFileSync(join(pair, "model.gguf"), join(work, "llava.gguf"));
  copyFileSync(join(pair, "mmproj.gguf"), join(work, "mmproj.gguf"));
  const fixtures = join(root, "tests", "golden", "fixtures");
  cpSync(join(fixtures, "llama3-rope"), join(work, "base"), { recursive: true });
  cpSync(join(fixtures, "adapters", "llama"), join(work, "adapter"), { recursive: true });
  cpSync(join(fixtures, "qwen2-vl"), join(work, "qwen2-vl"), { recursive: true });
  for (const [number, name] of ["first", "second", "third"].entries()) {
    copyFileSync(join(fixtures, "images", `film-${number}.png`), join(work, `${name}.png`));
  }
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(configuration));
  for (const { stem, code } of snippets) writeFileSync(join(folder, "src", `${stem}.ts`), `${code}\nexport {};\n`);
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const compiled = await runScript(tsc, ["-p", folder, "--pretty", "false"]);
  types = compiled.out;
  assert.ok(compiled.code === 0 || /snippet_\d+\.ts\(/.test(types), `${types}${compiled.err}`);
  const jobs = snippets
    .filter(({ noRun }) => noRun === undefined)
    .map(({ name, stem, example }) => ({ name, file: join(folder, "out", `${stem}.js`), cwd: example ? root : work }));
  writeFileSync(join(folder, "jobs.json"), JSON.stringify(jobs));
  const ran = await runScript(join(root, "tests", "docs", "run_snippets.ts"), [join(folder, "jobs.json")]);
  noise = ran.err;
  for (const [, json = ""] of ran.err.matchAll(/^snippet (\{.*\})$/gm)) {
    const { name, error } = JSON.parse(json) as { name: string; error: string | null };
    outcomes.set(name, error);
  }
}

let prepared: Promise<void> | undefined;

for (const { name, stem, noRun } of snippets) {
  test(`${name} ${noRun === undefined ? "runs" : `type-checks (not run: ${noRun})`}`, {
    // All of them run before the first is told: half a second each on two cores.
    timeout: 300_000,
  }, async () => {
    prepared ??= prepare();
    await prepared;
    const wrong = types.split("\n").filter((line) => new RegExp(`\\b${stem}\\.ts\\(`).test(line));
    assert.deepEqual(wrong, []);
    if (noRun !== undefined) {
      assert.notEqual(noRun, "", "say why it is not run: ```ts no-run: reason");
      return;
    }
    assert.ok(outcomes.has(name), `did not run\n${noise.slice(-2000)}`);
    assert.equal(outcomes.get(name), null);
  });
}
