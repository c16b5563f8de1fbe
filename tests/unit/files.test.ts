import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import {
  chmod,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { replaceFile, requireWritable, writeFailure } from "../../ts/files/write.ts";
import { runtime } from "../../ts/native/pick.ts";
import { scriptArguments } from "../runtimes/spawn.ts";

const windows = process.platform === "win32";
const unix = { skip: windows, timeout: 30_000 };
let all: string;
let folder: string;

before(async () => {
  all = await mkdtemp(join(tmpdir(), "prefixkv-files-"));
});

after(() => rm(all, { recursive: true }));

beforeEach(async () => {
  folder = await mkdtemp(join(all, "test-"));
});

const at = (...names: string[]): string => join(folder, ...names);
const text = (path: string): Promise<string> => readFile(path, "utf8");
const mode = async (path: string): Promise<number> => (await stat(path)).mode & 0o7777;
const refused = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => assert.fail("was not refused"),
    (error: unknown) => writeFailure(error),
  );

test("a file is written, replaced, and keeps its mode", async () => {
  await replaceFile(at("a"), "one");
  await replaceFile(at("a"), new Uint8Array([0xff, 0x00]));
  assert.deepEqual([...(await readFile(at("a")))], [0xff, 0]);
  if (windows) return;
  await writeFile(at("plain"), "");
  await replaceFile(at("new"), "");
  assert.equal(await mode(at("new")), await mode(at("plain")), "a new file has the mode of any other");
  for (const bits of [0o600, 0o640, 0o664, 0o755]) {
    await chmod(at("a"), bits);
    await replaceFile(at("a"), "two");
    assert.deepEqual([await mode(at("a")), await text(at("a"))], [bits, "two"]);
  }
  assert.deepEqual((await readdir(folder)).sort(), ["a", "new", "plain"]);
});

test("links are followed to what they mean, there or not", unix, async () => {
  await mkdir(at("data"));
  await writeFile(at("data", "real"), "old", { mode: 0o600 });
  await symlink("data", at("folder"));
  await symlink("real", at("data", "near"));
  await symlink("folder/near", at("far"));
  await replaceFile(at("far"), "new");
  assert.equal(await text(at("data", "real")), "new");
  assert.equal(await mode(at("data", "real")), 0o600);
  assert.equal(await readlink(at("far")), "folder/near");
  assert.equal(await readlink(at("data", "near")), "real");
  // From inside a folder that is a link `..` leads to where the folder really is.
  await symlink("../later", at("data", "dangling"));
  await replaceFile(at("folder", "dangling"), "made");
  assert.equal(await text(at("later")), "made");
  assert.ok((await lstat(at("data", "dangling"))).isSymbolicLink());
  await symlink("b", at("a"));
  await symlink("a", at("b"));
  assert.match(await refused(replaceFile(at("a"), "")), /its links lead in a circle/);
  await symlink("nowhere/file", at("lost"));
  assert.match(await refused(replaceFile(at("lost"), "")), /its folder does not exist/);
});

test("what cannot be written says so, also before the work", async () => {
  await mkdir(at("folder"));
  await writeFile(at("file"), "");
  for (const [path, pattern] of [
    [at("folder"), /it is a folder/],
    [at("folder/"), /it is a folder/],
    [at("new/"), /it is a folder/],
    [at("none", "file"), /its folder does not exist/],
    ...(windows ? [] : ([[at("n".repeat(256)), /its name is longer than the disk allows/]] as const)),
  ] as const) {
    assert.match(await refused(replaceFile(path, "")), pattern);
    assert.match(await refused(requireWritable(path)), pattern);
  }
  for (const path of ["file", "new"]) await requireWritable(at(path));
  assert.deepEqual((await readdir(folder)).sort(), ["file", "folder"], "asking makes nothing");
  if (windows) return;
  const longest = at("n".repeat(255));
  await replaceFile(longest, "old");
  await replaceFile(longest, "new");
  assert.equal(await text(longest), "new");
});

test("a pipe with a reader gets everything, one without is refused, and both stay pipes", unix, async () => {
  const pipe = at("pipe");
  spawnSync("mkfifo", [pipe]);
  assert.match(await refused(replaceFile(pipe, "x")), /nobody reads the pipe/);
  const length = 3_000_000;
  const reader = spawn("sh", ["-c", `sleep 0.2; wc -c < '${pipe}'`], { stdio: ["ignore", "pipe", "ignore"] });
  let counted = "";
  reader.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    counted += chunk;
  });
  const done = new Promise((resolve) => reader.on("close", resolve));
  for (let ready = false; !ready; ) {
    ready = await replaceFile(pipe, "x".repeat(length)).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === "ENXIO") return new Promise<boolean>((later) => setTimeout(() => later(false), 20));
        throw error;
      },
    );
  }
  await done;
  assert.equal(Number(counted), length);
  assert.ok((await lstat(pipe)).isFIFO());
});

const child = fileURLToPath(new URL("files_child.ts", import.meta.url));

/** Runs the child in a shell, whose words come before it. */
function inShell(before: string, path: string, size: number, after = ""): { out: string; err: string } {
  const words = [process.execPath, ...scriptArguments(child, [path, String(size)])].map((word) => `'${word}'`);
  const { stdout, stderr } = spawnSync("bash", ["-c", `${before} ${words.join(" ")} ${after}`], { encoding: "utf8" });
  return { out: stdout, err: stderr };
}

test("devices are written to and stay what they are", unix, async () => {
  await symlink("/dev/null", at("null"));
  for (const path of ["/dev/null", at("null")]) assert.equal(inShell("", path, 3).err, "written");
  assert.ok((await lstat(at("null"))).isSymbolicLink());
  assert.equal(spawnSync("test", ["-c", "/dev/null"]).status, 0);
  assert.match(inShell("", "/dev/full", 3).err, /the disk is full \(ENOSPC\)/);
  // Only the superuser may make one; elsewhere the two above have to do.
  if (spawnSync("mknod", [at("device"), "c", "1", "3"]).status !== 0) return;
  await chmod(at("device"), 0o600);
  inShell("", at("device"), 3);
  assert.ok((await lstat(at("device"))).isCharacterDevice());
});

test("standard output as a file is that output, wherever it goes", unix, async () => {
  assert.deepEqual(inShell("", "/dev/stdout", 200_000), { out: "n".repeat(200_000), err: "written" });
  assert.equal(inShell("", "/dev/fd/1", 3).out, "nnn");
  assert.equal(inShell(`{ echo before; `, "/dev/stdout", 3, `; echo; echo after; } > '${at("line")}'`).err, "written");
  assert.equal(await text(at("line")), "before\nnnn\nafter\n");
  assert.equal(inShell("", "/dev/fd/5", 3, `5> >(cat > '${at("five")}')`).err, "written");
  for (let tries = 0; tries < 50 && (await text(at("five")).catch(() => "")) === ""; tries += 1)
    await new Promise((done) => setTimeout(done, 20));
  assert.equal(await text(at("five")), "nnn");
});

test("a disk that takes no more leaves the old file, or none", unix, async () => {
  await writeFile(at("old"), "as it was", { mode: 0o640 });
  for (const name of ["old", "new"]) {
    const { err } = inShell("trap '' XFSZ; ulimit -f 8; exec", at(name), 100_000);
    assert.match(err, /a file may not be that large here \(EFBIG\)|File too large/);
  }
  assert.deepEqual(await readdir(folder), ["old"]);
  assert.deepEqual([await text(at("old")), await mode(at("old"))], ["as it was", 0o640]);
});

test("another name of a file keeps the old content", unix, async () => {
  await writeFile(at("a"), "old");
  await link(at("a"), at("b"));
  await replaceFile(at("a"), "new");
  assert.deepEqual([await text(at("a")), await text(at("b"))], ["new", "old"]);
});

test("on Deno a file needs leave to be read and written, and no more", async () => {
  if (runtime().name !== "deno") return;
  const read = [fileURLToPath(new URL("../../", import.meta.url)), folder].join(",");
  for (const size of ["3", "4"]) {
    const leave = ["--no-check", "--no-prompt", `--allow-read=${read}`, `--allow-write=${folder}`];
    const { stderr } = spawnSync(process.execPath, ["run", ...leave, child, at("file"), size], { encoding: "utf8" });
    assert.match(stderr, /^written$/m);
    assert.equal(await text(at("file")), "n".repeat(Number(size)));
  }
});
