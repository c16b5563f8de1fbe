// Servers that never come to an end, files that are too large, and caches in which others have laid traps.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { link, lstat, mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { Gain } from "../../ts/hub/download.ts";
import { parseHubId } from "../../ts/hub/ids.ts";
import { hubModel } from "../../ts/hub/snapshot.ts";
import { machine, type System } from "../../ts/hub/system.ts";
import { HubError, OptionError } from "../../ts/index.ts";
import { testHub } from "../kit/hub.ts";
import { commit, etagOf, smallFiles } from "../kit/hub_server.ts";

const shard = "model-1.safetensors";
const size = 200_000;
const unix = { skip: process.platform === "win32" };
const { server, folder, freshCache } = testHub("hostile", size);
let cacheDir: string;

beforeEach(() => {
  cacheDir = freshCache();
});

const quick: System = { ...machine, pause: (_, signal) => machine.pause(2, signal) };
const get = (options: object = {}): Promise<string> =>
  hubModel(
    { id: "org/tiny", revision: "main" },
    { endpoint: server.endpoint, cacheDir, token: false, ...options },
    quick,
  ).then((files) => files.source);
const content = (name: string): Uint8Array => server.files.get(name) ?? new Uint8Array();
const blob = (name: string): string => join(cacheDir, "models--org--tiny", "blobs", etagOf(name, content(name)));
const stored = () => server.seen.filter(({ path }) => path === `/store/${shard}`);
const assertWhole = async (path: string): Promise<void> => {
  for (const name of [shard, "model-2.safetensors", "config.json"])
    assert.ok(Buffer.from(content(name)).equals(await readFile(join(path, name))), name);
};
const refused = async (code: string, pattern: RegExp): Promise<HubError> => {
  const error = await get().then(
    () => assert.fail("was not refused"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof HubError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, pattern);
  return error;
};

/** Answers for the first shard: each turn says with which status, headers and bytes, and whether it then cuts. */
interface Reply {
  status: number;
  headers?: Record<string, string>;
  from: number;
  to: number;
}
function replies(turn: (turn: number, start: number) => Reply): void {
  let turns = 0;
  server.hook = (request, response, seen) => {
    if (seen.path !== `/store/${shard}`) return false;
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const { status, headers = {}, from, to } = turn(turns++, start);
    const body = content(shard).subarray(from, to);
    seen.sent = body.length;
    response.writeHead(status, headers);
    cutAfter(response, body);
    return true;
  };
}
function cutAfter(response: ServerResponse, body: Uint8Array): void {
  response.write(body, () => setTimeout(() => response.destroy(), 20));
}

const sent = (): number => stored().reduce((sum, each) => sum + each.sent, 0);

test("a server without ranges that cuts at the same place is given up after five attempts", async () => {
  for (const share of [0.7, 0.01, 0.999]) {
    server.seen = [];
    cacheDir = freshCache();
    replies(() => ({ status: 200, headers: { "content-length": `${size}` }, from: 0, to: share * size }));
    await refused("hub-network", /cannot download model-1\.safetensors: /);
    // The first one brings something, five do not.
    assert.ok(stored().length >= 5 && stored().length <= 6, `${share}: ${stored().length}`);
    assert.ok(sent() <= 6 * size);
  }
});

test("a server without ranges that gets further comes to its end", async () => {
  replies((turn) => ({ status: 200, from: 0, to: Math.min(size, (0.15 + 0.1 * turn) * size) }));
  await assertWhole(await get());
  // One that gets further by a byte each time would send the file as often as it has bytes.
  cacheDir = freshCache();
  server.seen = [];
  replies((turn) => ({ status: 200, from: 0, to: size / 2 + turn }));
  await refused("hub-network", /model-1/);
  assert.ok(stored().length <= 6, String(stored().length));
});

test("a server with ranges that brings next to nothing each time is given up", async () => {
  const range = (start: number): Record<string, string> => ({ "content-range": `bytes ${start}-${size - 1}/${size}` });
  replies((_, start) => ({
    status: start > 0 ? 206 : 200,
    headers: start > 0 ? range(start) : {},
    from: start,
    to: start + 10,
  }));
  await refused("hub-network", /model-1/);
  assert.ok(stored().length <= 6, String(stored().length));
});

test("servers that answer with other ranges, or with none, are given up", async () => {
  const cut = { status: 200, from: 0, to: 0.6 * size };
  const cases: [string, (start: number) => Reply][] = [
    [
      "another start",
      (start) => ({
        status: 206,
        headers: { "content-range": `bytes ${start - 5}-${size - 1}/${size}` },
        from: start - 5,
        to: size,
      }),
    ],
    ["from 0", () => ({ status: 206, headers: { "content-range": `bytes 0-${size - 1}/${size}` }, from: 0, to: size })],
    ["no range", (start) => ({ status: 206, from: start, to: size })],
    ["nonsense", (start) => ({ status: 206, headers: { "content-range": "bytes x" }, from: start, to: size })],
    ["not satisfiable", () => ({ status: 416, from: 0, to: 0 })],
    [
      "nothing",
      (start) => ({
        status: 206,
        headers: { "content-range": `bytes ${start}-${size - 1}/${size}` },
        from: start,
        to: start,
      }),
    ],
  ];
  for (const [name, reply] of cases) {
    server.seen = [];
    cacheDir = freshCache();
    replies((_, start) => (start > 0 ? reply(start) : cut));
    const error = await get().catch((error: unknown) => error);
    assert.ok(error instanceof HubError, `${name}: ${error}`);
    assert.match(error.code, /^hub-(network|integrity)$/, name);
    assert.ok(stored().length <= 12, `${name}: ${stored().length}`);
  }
});

test("a storage that redirects in a circle, or answers without an end, is given up", async () => {
  server.hook = (_, response, { path }) => {
    const [, step] = /^\/(?:store|step)\/(.*)$/.exec(path) ?? [];
    if (step === undefined) return false;
    response.writeHead(302, { location: `/step/${(Number(step) || 0) + 1}` }).end();
    return true;
  };
  await refused("hub-response", /too many redirects/);
  assert.ok(server.seen.length < 60, String(server.seen.length));
  cacheDir = freshCache();
  server.hook = (_, response, { path }) => {
    if (path !== `/store/${shard}`) return false;
    response.writeHead(200);
    const more = (): void => void (response.destroyed || response.write(new Uint8Array(50_000), more));
    more();
    return true;
  };
  await refused("hub-integrity", /more than the promised 200000 bytes came/);
});

test("a file that shrinks or grows on its server is refused", async () => {
  const of =
    (total: number) =>
    (start: number): Reply => ({
      status: 206,
      headers: { "content-range": `bytes ${start}-${total - 1}/${total}` },
      from: start,
      to: Math.min(size, total),
    });
  for (const total of [size - 1, size / 2, size + 1]) {
    cacheDir = freshCache();
    replies((_, start) => (start > 0 ? of(total)(start) : { status: 200, from: 0, to: 0.6 * size }));
    await refused("hub-integrity", new RegExp(`the server has ${total} bytes, its list of files says ${size}`));
  }
  // Without a length it shows by its end, each time earlier.
  cacheDir = freshCache();
  server.seen = [];
  replies((turn) => ({ status: 200, from: 0, to: size * 0.9 * 0.5 ** turn }));
  await refused("hub-network", /model-1/);
  assert.ok(stored().length <= 6);
});

test("what counts as a gain", () => {
  const large = new Gain(10 * 2 ** 30, 0);
  assert.deepEqual(
    [1, 65_535, 65_536, 65_537, 200_000].map((length) => large.take(length, 0)),
    [false, false, true, false, false],
  );
  // From its end on, a gain is small again; from the start it has to be a tenth.
  assert.ok(large.take(200_000, 65_536));
  assert.ok(!large.take(2 ** 30, 0));
  assert.ok(large.take(2 ** 30 + 300_000, 0));
  const small = new Gain(10, 0);
  assert.deepEqual(
    [0, 1, 1, 2].map((length) => small.take(length, 1)),
    [false, true, false, true],
  );
  // Bytes that an earlier load has left are no gain.
  assert.ok(!new Gain(1000, 500).take(500, 0));
});

test("files other than weights have a limit, which is said before their first byte", async () => {
  for (const name of [
    "tokenizer.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "tokenizer_config.json",
  ]) {
    server.reset();
    server.files = smallFiles(size);
    if (!server.files.has(name)) server.files.set(name, Buffer.from(JSON.stringify(name)));
    server.hook = (_, response, { path }) => {
      if (!path.startsWith("/api/")) return false;
      const siblings = [...server.files].map(([file, bytes]) => ({
        rfilename: file,
        size: file === name ? 64 * 2 ** 20 + 1 : bytes.length,
        blobId: etagOf(file, bytes),
        ...(file.endsWith(".safetensors") && { lfs: { sha256: etagOf(file, bytes), size: bytes.length } }),
      }));
      response.end(JSON.stringify({ sha: commit, siblings }));
      return true;
    };
    const error = await refused("hub-response", /it has 67108865 bytes, and at most 67108864 of such a file/);
    assert.equal(error.details.file, name);
    assert.ok(!server.fetched.some((path) => path.endsWith(name)));
    // A list that says less than comes does not help: bytes are counted.
    server.hook = () => false;
    server.wrong.set(name, new Uint8Array(300_000));
    await refused("hub-integrity", /the server has 300000 bytes|more than the promised|promised hash/);
    cacheDir = freshCache();
  }
});

test("a name that no disk takes is refused with its own words", unix, async () => {
  const long = `${"m".repeat(250)}.safetensors`;
  server.files.set(long, new Uint8Array(10));
  server.files.set("model.safetensors.index.json", Buffer.from(JSON.stringify({ weight_map: { a: long } })));
  await refused("hub-response", /its name is longer than a disk allows \(255 bytes\)/);
  server.files = smallFiles(size);
  assert.throws(
    () => parseHubId(`org/tiny@${"v".repeat(256)}`, undefined),
    (error: Error) => error instanceof OptionError && /longer than a disk allows/.test(error.message),
  );
  assert.equal(parseHubId(`org/tiny@${"v".repeat(255)}`, undefined)?.revision.length, 255);
  // A revision of many folders, each of which is short enough.
  cacheDir = join(folder, ...Array.from({ length: 16 }, () => "d".repeat(250)));
  await refused("hub-disk", /a path in the cache .* is longer than its disk allows: set HF_HUB_CACHE/);
});

test("a download does not follow a link in its place, and takes over no file of somebody else", unix, async () => {
  const victim = join(folder, "victim");
  const traps: [string, (at: string) => Promise<unknown>][] = [
    ["a link", (at) => symlink(victim, at)],
    ["a link to nothing", (at) => symlink(join(folder, "made"), at)],
    ["a link to a device", (at) => symlink("/dev/null", at)],
    ["another name", (at) => link(victim, at)],
    ["a pipe", async (at) => spawnSync("mkfifo", [at])],
  ];
  for (const [name, lay] of traps) {
    cacheDir = freshCache();
    await writeFile(victim, Buffer.from(content(shard)).subarray(0, 50), { mode: 0o600 });
    await mkdir(join(blob(shard), ".."), { recursive: true });
    await lay(`${blob(shard)}.incomplete`);
    await assertWhole(await get());
    assert.ok((await readFile(victim)).equals(Buffer.from(content(shard)).subarray(0, 50)), name);
    assert.ok((await lstat(blob(shard))).isFile(), name);
    await assert.rejects(stat(join(folder, "made")));
  }
  // Laid while the file is on its way: what came goes to no other file, and the next attempt has a file of its own.
  cacheDir = freshCache();
  replies((turn, start) => {
    if (turn > 0) server.hook = () => false;
    return {
      status: turn > 0 && start > 0 ? 206 : 200,
      headers: start > 0 ? { "content-range": `bytes ${start}-${size - 1}/${size}` } : {},
      from: start,
      to: turn > 0 ? size : 50_000,
    };
  });
  let laid = false;
  const pause: System["pause"] = async (milliseconds, signal) => {
    const at = `${blob(shard)}.incomplete`;
    if (!laid) {
      laid = true;
      await rm(at, { force: true });
      await symlink(victim, at);
    }
    return quick.pause(milliseconds, signal);
  };
  const { source } = await hubModel(
    { id: "org/tiny", revision: "main" },
    { endpoint: server.endpoint, cacheDir, token: false },
    { ...quick, pause },
  );
  await assertWhole(source);
  assert.ok((await readFile(victim)).equals(Buffer.from(content(shard)).subarray(0, 50)));
});

test("something else in the place of a note is no reason to refuse a whole model", async () => {
  await assertWhole(await get());
  const refs = join(cacheDir, "models--org--tiny", "refs");
  await rm(join(refs, "main"));
  await mkdir(join(refs, "main", "deep"), { recursive: true });
  await assertWhole(await get());
  assert.ok((await stat(join(refs, "main"))).isDirectory());
  await rm(refs, { recursive: true });
  await writeFile(refs, "a file");
  await assertWhole(await get());
  // The names of notes that are written are left over by nobody.
  await rm(refs);
  await mkdir(refs);
  await get();
  assert.deepEqual(await readdir(refs), ["main"]);
  await writeFile(join(refs, "main"), "x".repeat(10_000));
  await assertWhole(await get());
});

test("a lock that is a trap is an error, not a wait without end", unix, async () => {
  const locks = join(cacheDir, ".locks", "models--org--tiny");
  const lock = join(locks, `${etagOf(shard, content(shard))}.prefixkv`);
  await mkdir(lock, { recursive: true });
  await refused("hub-disk", /cannot write to the cache .* \(ENOLCK\)/);
  await rm(lock, { recursive: true });
  await symlink(join(folder, "nowhere"), lock);
  await refused("hub-disk", /\(ENOLCK\)/);
  await rm(lock);
  await writeFile(lock, "");
  const past = new Date(Date.now() - 60_000);
  await utimes(lock, past, past);
  await assertWhole(await get());
});
