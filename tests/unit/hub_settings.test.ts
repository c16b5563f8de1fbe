import assert from "node:assert/strict";
import { lstat, mkdir, readFile, utimes, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { ModelCache } from "../../ts/hub/disk_cache.ts";
import { retryAfter } from "../../ts/hub/failures.ts";
import { isSafeName, parseHubId } from "../../ts/hub/ids.ts";
import { withLock } from "../../ts/hub/lock.ts";
import { readSettings } from "../../ts/hub/settings.ts";
import { machine } from "../../ts/hub/system.ts";
import { AbortError, OptionError } from "../../ts/index.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const folder = temporaryFolder("settings");

test("ids of the hub are told from paths", () => {
  assert.deepEqual(parseHubId("org/name", undefined), { id: "org/name", revision: "main" });
  assert.deepEqual(parseHubId("llava-hf/llava-1.5-7b-hf@refs/pr/3", undefined), {
    id: "llava-hf/llava-1.5-7b-hf",
    revision: "refs/pr/3",
  });
  assert.equal(parseHubId("org/name", "v1.0")?.revision, "v1.0");
  assert.equal(parseHubId("org/name@v1", "v1")?.revision, "v1");
  const paths = [
    "name",
    "a/b/c",
    "./org/name",
    "../name",
    "/org/name",
    "~/name",
    ".org/name",
    "org/.name",
    "org/",
    "C:\\a",
    "a\\b",
  ];
  for (const path of [...paths, "org/name.git", "org/na--me", "org/a..b", "file:///org/name", "org /name", ""])
    assert.equal(parseHubId(path, undefined), undefined, path);
  for (const revision of ["..", "a/../b", "/main", "a//b", "a b", "", "a\\b", "a?b"])
    assert.throws(() => parseHubId("org/name", revision), OptionError, revision);
  assert.throws(() => parseHubId("org/name@v1", "v2"), OptionError);
});

test("names of files that stay in their folder", () => {
  for (const name of ["a.json", "a/b.json", "..a", ".gitattributes"]) assert.ok(isSafeName(name), name);
  for (const name of ["", "..", "a/../b", "/a", "a//b", "a\\b", "C:a", "a\0b", "./a"])
    assert.ok(!isSafeName(name), name);
});

test("the environment is read as huggingface_hub reads it", async () => {
  const read = (env: Record<string, string>, options = {}) => readSettings({ token: false, ...options }, env);
  const none = await read({});
  assert.deepEqual(none, {
    endpoint: "https://huggingface.co",
    cacheDir: join(homedir(), ".cache", "huggingface", "hub"),
    token: undefined,
    offline: false,
    links: true,
  });
  assert.equal((await read({ XDG_CACHE_HOME: "/x" })).cacheDir, resolve("/x/huggingface/hub"));
  assert.equal((await read({ XDG_CACHE_HOME: "/x", HF_HOME: "/h" })).cacheDir, resolve("/h/hub"));
  assert.equal((await read({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" })).cacheDir, resolve("/old"));
  assert.equal((await read({ HF_HOME: "/h", HF_HUB_CACHE: "/c" })).cacheDir, resolve("/c"));
  assert.equal((await read({ HF_HUB_CACHE: "/c" }, { cacheDir: "/own" })).cacheDir, resolve("/own"));
  assert.equal((await read({ HF_HOME: "~/hf" })).cacheDir, join(homedir(), "hf", "hub"));
  assert.equal((await read({ HF_HOME: `\${DATA}/hf`, DATA: "/d" })).cacheDir, resolve("/d/hf/hub"));
  for (const value of ["1", "on", "Yes", "TRUE"]) assert.equal((await read({ HF_HUB_OFFLINE: value })).offline, true);
  for (const value of ["0", "", "no"]) assert.equal((await read({ HF_HUB_OFFLINE: value })).offline, false);
  assert.equal((await read({ HF_HUB_OFFLINE: "1" }, { offline: false })).offline, false);
  assert.equal((await read({ HF_ENDPOINT: "https://example.com/hf/" })).endpoint, "https://example.com/hf");
  assert.equal(
    (await read({ HF_ENDPOINT: "https://a.example" }, { endpoint: "http://b.example" })).endpoint,
    "http://b.example",
  );
  for (const endpoint of ["example.com", "ftp://example.com", "https://a:b@example.com", "https://example.com/?a=1"])
    await assert.rejects(read({}, { endpoint }), OptionError);
});

test("the token comes from the option, the environment or the file", async () => {
  const token = async (env: Record<string, string>, given?: string | false) =>
    (await readSettings(given === undefined ? {} : { token: given }, { HF_HOME: folder, ...env })).token;
  assert.equal(await token({}), undefined);
  await writeFile(join(folder, "token"), "hf_file\n");
  await writeFile(join(folder, "other"), " hf_other ");
  assert.equal(await token({}), "hf_file");
  assert.equal(await token({ HF_TOKEN_PATH: join(folder, "other") }), "hf_other");
  assert.equal(await token({ HF_TOKEN: "hf_env\n" }), "hf_env");
  assert.equal(await token({ HF_TOKEN: "hf_env" }, "hf_own"), "hf_own");
  assert.equal(await token({ HF_TOKEN: "hf_env" }, false), undefined);
  assert.equal(await token({ HF_TOKEN: "hf_env", HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }), undefined);
  const error = await token({ HF_TOKEN: "hf_a\nb" }).catch((error: unknown) => error);
  assert.ok(error instanceof OptionError && !error.message.includes("hf_a"));
});

test("Retry-After is seconds or a date", () => {
  assert.equal(retryAfter("120"), 120_000);
  assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 4000), 6000);
  assert.equal(retryAfter("Thu, 01 Jan 1970 00:00:10 GMT", 20_000), 0);
  assert.deepEqual([retryAfter(null), retryAfter("soon")], [undefined, undefined]);
});

test("where links are not possible, files are copied", async () => {
  const commit = "a".repeat(40);
  const cache = new ModelCache(folder, "org/copied", false);
  await mkdir(join(cache.folder, "blobs"), { recursive: true });
  await writeFile(cache.blob("b"), "content");
  await cache.link(commit, "nested/config.json", "b");
  const path = join(cache.snapshot(commit), "nested", "config.json");
  assert.ok((await lstat(path)).isFile());
  assert.equal(await readFile(path, "utf8"), "content");
  // With links again, a link takes the copy's place.
  await new ModelCache(folder, "org/copied").link(commit, "nested/config.json", "b");
  assert.ok((await lstat(path)).isSymbolicLink());
  assert.equal(await readFile(path, "utf8"), "content");
});

test("a lock has one holder at a time, and waiting for it can be given up", async () => {
  const path = join(folder, "locks", "a.prefixkv");
  const { signal } = new AbortController();
  const options = { signal, system: machine, waiting: async () => {} };
  let held = 0;
  const hold = () =>
    withLock(path, options, async () => {
      assert.equal(++held, 1);
      await machine.pause(20, signal);
      held -= 1;
    });
  await Promise.all([hold(), hold(), hold()]);
  await withLock(path, options, async () => {
    const waiting = withLock(path, { ...options, signal: AbortSignal.timeout(50) }, async () => assert.fail());
    await assert.rejects(waiting, AbortError);
  });
  // One of another machine that has not been touched for long.
  await writeFile(path, JSON.stringify({ pid: 1, host: "another", id: "x" }));
  await utimes(path, new Date(0), new Date(0));
  await hold();
});
