// Comments and guides are sentences: none begins with a "What" that asks nothing ("What a lane holds."), and none says "that of"
// where a possessive does ("the model's size"). Messages do not say it either.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folders = ["bench", "crates", "docs", "examples", "scripts", "tests", "ts"];
const files = ["CHANGELOG.md", "CONTRIBUTING.md", "README.md"];

/** The sentences of a line that begin so and end without asking. Of code, only comments are looked at. */
function headless(line: string, prose: boolean): string[] {
  const text = prose ? line : /(?:^\s*(?:\/\/[/!]?|\/\*\*?|\*|#)|\s(?:\/\/|\/\*\*))\s(.*)$/.exec(line)?.[1];
  return [...(text ?? "").matchAll(/(?:^|[.:|>] |^[-*] )(What [a-z][^?]*)$/g)].map(([, sentence = ""]) => sentence);
}

/** The lines, from 0, that say "that of", in code as in text: nothing else reads so. It may go over the end of a line. */
function pronouns(text: string): number[] {
  return [...text.matchAll(/\bthat[\s\\/!*#>]+of\b/gi)].map(({ index }) => text.slice(0, index).split("\n").length - 1);
}

test("a headless sentence is seen in comments and guides, and a question is none", () => {
  assert.deepEqual(headless("/// What a lane holds.", false), ["What a lane holds."]);
  assert.deepEqual(headless("  // Freed here. What is left goes on.", false), ["What is left goes on."]);
  assert.deepEqual(headless("- What it costs: a pass.", true), ["What it costs: a pass."]);
  assert.deepEqual(headless("| `full` | What a cache takes. |", true), ["What a cache takes. |"]);
  assert.deepEqual(headless('  const question = "What color is the star";', false), []);
  assert.deepEqual(headless("// What is it? Nothing.", false), []);
  assert.deepEqual(headless("This is what it costs.", true), []);
});

test('"that of" is seen wherever it stands, and the words apart are not', () => {
  assert.deepEqual(pronouns("one\n/// as small as that of a lane"), [1]);
  assert.deepEqual(pronouns("//! attention is that of\n//! the codes"), [0]);
  for (const mark of ["///", "//!", " *", "#", ">", "", "\r"])
    assert.deepEqual(pronouns(`${mark} apart from that\n${mark} of the output`), [0], mark);
  assert.deepEqual(pronouns('  "nor that \\\n   of a folder"'), [0]);
  assert.deepEqual(pronouns("So that, of two entries, the later stays. All of that. That offer."), []);
});

test('no comment and no guide has a headless sentence or says "that of"', async () => {
  const found: string[] = [];
  for (const folder of folders) {
    for (const name of await readdir(join(root, folder), { recursive: true })) {
      if (/(?:^|[\\/])(?:target|node_modules|fixtures|data|results)[\\/]/.test(name)) continue;
      if (/\.(?:rs|ts|mjs|cu|cuh|h|cpp|c|py|md)$/.test(name)) await look(join(folder, name));
    }
  }
  for (const name of files) await look(name);
  assert.deepEqual(found, []);

  async function look(name: string): Promise<void> {
    // This file has them as examples.
    if (name.endsWith("english.test.ts")) return;
    const text = await readFile(join(root, name), "utf8");
    const lines = text.split(/\r?\n/);
    for (const at of pronouns(text)) found.push(`${name}:${at + 1}: ${lines[at]}`);
    for (const [at, line] of lines.entries())
      for (const sentence of headless(line, name.endsWith(".md"))) found.push(`${name}:${at + 1}: ${sentence}`);
  }
});
