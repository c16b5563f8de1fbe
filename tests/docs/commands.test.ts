// Every command line of the documentation: all are understood, and all are run that need neither a network nor a real LLaVA.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { parseCommand } from "../../ts/cli/args.ts";
import { commands } from "../../ts/cli/commands.ts";
import { inTurn } from "../kit/turns.ts";
import { root, runScript } from "../runtimes/spawn.ts";

interface Line {
  /** Where it stands. */
  name: string;
  args: string[];
}

const pages = readdirSync(join(root, "docs"), { recursive: true }).map((name) => join("docs", String(name)));
const lines = ["README.md", ...pages.filter((name) => name.endsWith(".md")).sort()].flatMap(collect);
const folder = mkdtempSync(join(tmpdir(), "prefixkv-commands-"));

function collect(page: string): Line[] {
  const blocks = [...readFileSync(join(root, page), "utf8").matchAll(/^```sh\n(.*?)^```$/gms)];
  const found = blocks.flatMap(([, block = ""]) => block.split("\n").filter((line) => line.startsWith("prefixkv ")));
  return found
    .filter((line) => line !== "prefixkv COMMAND [FLAGS]")
    .map((line) => ({ name: `${page}: ${line}`, args: words(line).slice(1) }));
}

/** A line as a shell splits it: blanks, and quotes around a word. */
function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, plain]) => double ?? single ?? plain ?? "",
  );
}

/** The files that the lines name, as they come out of each other. */
function prepare(): void {
  for (const index of ["000", "001", "002"]) {
    cpSync(join(root, "data", "scenes", `scene-${index}.png`), join(folder, `scene-${index}.png`));
  }
  cpSync(join(root, "data", "scenes", "scene-000.png"), join(folder, "scene.png"));
  mkdirSync(join(folder, "runs"));
  cpSync(join(root, "tests", "fixtures", "eval-run"), join(folder, "runs", "mine"), { recursive: true });
  symlinkSync(join(root, "models"), join(folder, "models"));
}

/** One sample is enough to see that a grid runs, two where it calibrates, and a folder belongs to one grid; ten trials show a search. */
function shortened(args: string[], place: number): string[] {
  if (args.includes("--trials")) return args.map((arg, at) => (args[at - 1] === "--trials" ? "10" : arg));
  if (args[0] !== "eval") return args;
  const out = args.indexOf("--out");
  const without = args.filter(
    (arg, at) => arg !== "--limit" && args[at - 1] !== "--limit" && at !== out && at !== out + 1,
  );
  const limit = args.some((arg) => arg.includes("crossFit")) ? "2" : "1";
  return [...without, "--limit", limit, "--out", `grid-${place}`];
}

after(() => rmSync(folder, { recursive: true }));

test("there are command lines, and each is understood", () => {
  assert.ok(lines.length > 20, String(lines.length));
  for (const { name, args } of lines) {
    const command = commands.find((command) => command.name === args[0]);
    assert.ok(command, name);
    parseCommand(command, args.slice(1));
  }
});

/** The number of a line among those that take turns: lines that name one file, which one of them writes, have one number. */
function turn(place: number): number {
  const files = (at: number): string[] => lines[at]?.args.flatMap((arg) => arg.match(/[\w-]+\.json\b/g) ?? []) ?? [];
  const own = files(place);
  const first = lines.findIndex((_, at) => files(at).some((name) => own.includes(name)));
  return first === -1 ? place : first;
}

prepare();
for (const [place, { name, args }] of lines.entries()) {
  // It runs until it is told to end.
  if (args[0] === "serve") continue;
  const away = args.find((arg) => /^org\/|llava-(hf|1\.5)/.test(arg));
  if (away !== undefined || !(name.startsWith("README") || inTurn(turn(place)))) continue;
  test(`${name} runs`, { timeout: 120_000 }, async () => {
    if (args[0] === "compare") {
      const grid = ["eval", "--methods", "h2o", "--keeps", "0.5", "--limit", "1", "--out"];
      for (const out of args.slice(1, 3)) await cli([...grid, out]);
    }
    await cli(shortened(args, place));
  });
}

async function cli(args: string[]): Promise<void> {
  const { code, out, err } = await runScript(join(root, "ts", "cli", "main.ts"), args, { cwd: folder });
  assert.equal(code, 0, `${out}${err}`);
}
