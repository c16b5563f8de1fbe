// Text that the command line lets through to a terminal, and how it reads its arguments.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import type { Streams } from "../../ts/cli/command.ts";
import { noOutput } from "../../ts/cli/run.ts";
import { formatJson, printable } from "../../ts/format.ts";
import type { OpenDoor } from "../../ts/native/napi.ts";
import { cli as runCli } from "../kit/command_line.ts";
import { FakeNative } from "../kit/fake_native.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const evil = "\x1b]0;title\x07\x1b[2J\x1b[31m\x9b31m\r\b\x7f\u0085";
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const harmless = /^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$/;
const folder = temporaryFolder("output");
const picture = join(folder, "scene.png");
before(() => writeFile(picture, "png"));

/** A door whose name holds what a terminal must not get. */
const door = async (native: FakeNative): Promise<OpenDoor> => ({ native, file: `native/${evil}.node` });

async function cli(args: string[], fake = new FakeNative(), given: Partial<Streams> = {}) {
  return runCli(args, { fake, door: () => door(fake), ...given });
}

test("control characters are shown, line ends and tabs stay", () => {
  assert.equal(printable("a\tb\nc é 猫 \u200f שלום 😀"), "a\tb\nc é 猫 \u200f שלום 😀");
  assert.equal(printable(evil), "\\x1b]0;title\\x07\\x1b[2J\\x1b[31m\\x9b31m\\r\\b\\x7f\\x85");
  for (let code = 0; code < 0x100; code += 1) {
    const shown = printable(String.fromCharCode(code));
    assert.match(shown, harmless, `${code}`);
    assert.equal(shown.length === 1, code === 9 || code === 10 || (code >= 32 && code < 127) || code >= 160, `${code}`);
    assert.equal(JSON.parse(formatJson(String.fromCharCode(code))), String.fromCharCode(code));
    assert.match(formatJson(String.fromCharCode(code)), harmless);
  }
});

test("an answer cannot write to a terminal what it likes", async () => {
  const fake = new FakeNative();
  fake.pieces = ["There\tis\n", `a ${evil}`, "star"];
  const { code, out, err } = await cli(["describe", picture], fake, { interactive: true, color: true });
  assert.equal(code, 0);
  assert.equal(out, `There\tis\na ${printable(evil)}star\n`);
  // The bar's own returns are the only ones.
  assert.match(err.replaceAll("\r", ""), harmless);
  const json = await cli(["describe", picture, "--json"], fake);
  assert.match(json.out, harmless);
  assert.equal(JSON.parse(json.out).text, `There\tis\na ${evil}star`);
});

test("errors, names of files and of models cannot either", async () => {
  const refusing = new FakeNative();
  refusing.requestError = { code: "template", message: `the template says ${evil}`, details: { said: evil } };
  const named = join(folder, `a${evil.replaceAll("/", "")}`);
  await mkdir(named);
  const hostile = new FakeNative();
  hostile.loadError = { code: "model-file", message: `${evil} is no model`, details: {} };
  for (const [args, fake] of [
    [["describe", picture], refusing],
    [["describe", join(named, "none.png")], new FakeNative()],
    [["describe", picture, `--${evil}`], new FakeNative()],
    [[evil], new FakeNative()],
    [["describe", picture, "--method", evil], new FakeNative()],
    [["report", named, "--out", join(named, "none", "x.html")], new FakeNative()],
    [["describe", picture, "--model", named], hostile],
    [["doctor"], new FakeNative()],
    [["eval", "--methods", evil, "--keeps", "0.5", "--out", named], new FakeNative()],
    [["score", "--prompt", evil, "--answer", evil], new FakeNative()],
  ] as [string[], FakeNative][]) {
    for (const json of [false, true]) {
      const { out, err } = await cli(json ? [...args, "--json"] : args, fake);
      assert.match(out, harmless, args.join(" "));
      assert.match(err, harmless, args.join(" "));
      if (json) JSON.parse(out);
    }
  }
});

test("the colour of a label is our own", async () => {
  const { err } = await cli(["\x1b[5mnone"], new FakeNative(), { color: true });
  const label = "\x1b[31merror[usage]\x1b[0m: ";
  assert.ok(err.startsWith(label), JSON.stringify(err));
  assert.match(err.slice(label.length), /unknown command `\\x1b\[5mnone`/);
  assert.match(err.slice(label.length), harmless);
});

test("-h is help, but not as a value or behind --", async () => {
  for (const args of [
    ["describe", "-h"],
    ["describe", picture, "-h"],
    ["describe", "--help"],
  ])
    assert.match((await cli(args)).out, /^prefixkv describe IMAGE\.\.\. \[FLAGS\]/, args.join(" "));
  for (const value of ["-h", "--help", "--json", "-1", "--"]) {
    const { code, fake } = await cli(["score", "--prompt", value, "--answer", "x"]);
    assert.equal(code, 0, value);
    assert.ok(JSON.stringify(fake.requests[0]?.request).includes(JSON.stringify(value)), value);
  }
  const behind = await cli(["describe", "--", "-h"]);
  assert.match(behind.err, /cannot read the image -h/);
  assert.match((await cli(["describe", picture, "-x"])).err, /describe has no flag -x/);
  assert.match((await cli(["describe", picture, "-help"])).err, /describe has no flag -/);
});

test("--json as a value does not make an error JSON", async () => {
  assert.equal((await cli(["describe", "none.png", "--prompt", "--json"])).out, "");
  assert.equal((await cli(["describe", "--", "none.png", "--json"])).out, "");
  assert.equal(JSON.parse((await cli(["describe", "none.png", "--json"])).out).error.code, "image");
  assert.equal(JSON.parse((await cli(["describe", "none.png", "--sed", "1", "--json"])).out).error.code, "usage");
  assert.equal(JSON.parse((await cli(["nonsense", "--json"])).out).error.code, "usage");
});

test("a command that was stopped because nobody reads it has not failed", async () => {
  const controller = new AbortController();
  const fake = new FakeNative();
  const out = (): void => controller.abort(noOutput);
  const { code, err } = await cli(["describe", picture], fake, { signal: controller.signal, out });
  assert.deepEqual([code, err], [0, ""]);
});
