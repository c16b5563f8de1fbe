import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { hubModel } from "../../ts/hub/snapshot.ts";
import { machine, type System } from "../../ts/hub/system.ts";
import { HubError } from "../../ts/index.ts";
import { testHub } from "../kit/hub.ts";
import { etagOf, fail, smallFiles } from "../kit/hub_server.ts";

const shard = "model-1.safetensors";
const size = 200_000;
const { server, folder, freshCache } = testHub("faults", size);
let cacheDir: string;
let pauses: number[] = [];

beforeEach(() => {
  cacheDir = freshCache();
  pauses = [];
});

/** A clock that does not wait between attempts, and waits a moment for locks. */
const quick: System = {
  ...machine,
  pause: (milliseconds, signal) => {
    pauses.push(milliseconds);
    return machine.pause(Math.min(milliseconds, 5), signal);
  },
};
const get = (system: Partial<System> = {}, options: object = {}): Promise<string> =>
  hubModel(
    { id: "org/tiny", revision: "main", ...options },
    { endpoint: server.endpoint, cacheDir, token: false, ...options },
    { ...quick, ...system },
  ).then((files) => files.source);
const blobs = async (): Promise<string[]> => readdir(join(cacheDir, "models--org--tiny", "blobs"));
const content = (name: string): Uint8Array => server.files.get(name) ?? new Uint8Array();
const etag = (name: string): string => etagOf(name, content(name));
const stored = (name: string) => server.seen.filter(({ path }) => path === `/store/${name}`);
const assertWhole = async (path: string): Promise<void> => {
  for (const name of [shard, "model-2.safetensors", "config.json"])
    assert.ok(Buffer.from(content(name)).equals(await readFile(join(path, name))), name);
  assert.ok((await blobs()).every((name) => !name.endsWith(".incomplete")));
};
const refused = async (code: string, pattern: RegExp, ...given: Parameters<typeof get>): Promise<HubError> => {
  const error = await get(...given).then(
    () => assert.fail("was not refused"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof HubError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, pattern);
  assert.doesNotMatch(error.message + JSON.stringify(error.details), /secret/);
  assert.deepEqual(await readdir(join(cacheDir, ".locks", "models--org--tiny")).catch(() => []), [], "locks are gone");
  return error;
};
const answer = (path: RegExp, act: (response: ServerResponse, turn: number) => void): void => {
  let turn = 0;
  server.hook = (_, response, seen) => {
    if (!path.test(seen.path)) return false;
    act(response, turn++);
    return !response.writable || response.headersSent;
  };
};

test("a cut connection goes on where it ended", async () => {
  server.cut = { name: shard, after: 60_000, times: 2 };
  await assertWhole(await get());
  assert.deepEqual(
    stored(shard).map(({ range, sent }) => [range, sent]),
    [
      [undefined, 60_000],
      ["bytes=60000-", 60_000],
      ["bytes=120000-", 80_000],
    ],
  );
});

test("more cuts than attempts do not matter as long as something comes", async () => {
  server.cut = { name: shard, after: 20_000, times: 9 };
  await assertWhole(await get());
  assert.equal(stored(shard).length, 10);
});

test("a small file that is cut is asked for with its etag", async () => {
  server.files.set("tokenizer.json", new Uint8Array(100_000).fill(32));
  server.cut = { name: "tokenizer.json", after: 40_000, times: 1 };
  await assertWhole(await get());
  const asked = server.seen.filter(({ path }) => path.endsWith("/tokenizer.json"));
  assert.deepEqual(
    asked.map(({ sent }) => sent),
    [40_000, 60_000],
  );
});

test("a server without ranges sends the whole file again", async () => {
  server.noRanges = true;
  server.cut = { name: shard, after: 60_000, times: 1 };
  await assertWhole(await get());
  assert.deepEqual(
    stored(shard).map(({ sent }) => sent),
    [60_000, size],
  );
});

test("a connection that nothing comes through is cut", async () => {
  answer(/store\/model-1/, (response, turn) => {
    if (turn === 0) response.writeHead(200).flushHeaders();
  });
  await assertWhole(await get({ stall: 200 }));
  answer(/api/, (response) => void response.writeHead(200).flushHeaders());
  cacheDir = join(folder, "stalled");
  await refused("hub-network", /nothing came for 0\.05 s/, { stall: 50 });
});

test("a partial file of another content is not believed", async () => {
  await mkdir(join(cacheDir, "models--org--tiny", "blobs"), { recursive: true });
  const partial = join(cacheDir, "models--org--tiny", "blobs", `${etag(shard)}.incomplete`);
  for (const length of [1000, size, size + 1]) {
    server.seen = [];
    await writeFile(partial, new Uint8Array(length));
    await assertWhole(await get());
    assert.equal(stored(shard).at(-1)?.sent, size);
    await rm(join(cacheDir, "models--org--tiny", "blobs", etag(shard)));
  }
});

/** A fetch that loses sight of its signal, as Node's does once it has collected the Request (nodejs/node#55428). */
function deaf(silent: RegExp, body: "no answer" | "no body"): System["fetch"] {
  return (url, { signal: _, ...init }) => {
    if (!silent.test(url)) return fetch(url, init);
    if (body === "no answer") return new Promise(() => {});
    return Promise.resolve(new Response(new ReadableStream({ pull: () => new Promise(() => {}) })));
  };
}

for (const body of ["no answer", "no body"] as const)
  test(`a fetch that does not hear its signal holds nothing up (${body})`, async () => {
    await refused("hub-network", /nothing came for 0\.05 s/, { stall: 50, fetch: deaf(/store\/model-1/, body) });
    cacheDir = freshCache();
    answer(/resolve.*config\.json/, (response) => void fail(response, 404, "EntryNotFound"));
    await refused("hub-not-found", /org\/tiny has no file config\.json/, { fetch: deaf(/store\/model/, body) });
    server.reset();
    cacheDir = freshCache();
    const signal = AbortSignal.timeout(50);
    await assert.rejects(get({ fetch: deaf(/api/, body) }, { signal }), { name: "AbortError" });
  });

test("a partial file that another program takes away is no loss", async () => {
  let taken = false;
  const partial = join(cacheDir, "models--org--tiny", "blobs", `${etag(shard)}.incomplete`);
  const write: System["write"] = async (...given) => {
    await machine.write(...given);
    if (taken || given[2] + given[1].length < size) return;
    taken = await rm(partial).then(
      () => true,
      () => false,
    );
  };
  await assertWhole(await get({ write }));
  assert.ok(taken);
});

test("wrong content is refused and removed", async () => {
  server.wrong.set(shard, content("model-2.safetensors"));
  const error = await refused("hub-integrity", /model-1\.safetensors of org\/tiny: .* promised hash; it was removed/);
  assert.equal(error.details.file, shard);
  assert.equal(stored(shard).length, 1);
  assert.ok((await blobs()).every((name) => !name.startsWith(etag(shard))));
  // Refused again with a first part that was right.
  await writeFile(
    join(cacheDir, "models--org--tiny", "blobs", `${etag(shard)}.incomplete`),
    content(shard).slice(0, 9),
  );
  await refused("hub-integrity", /promised hash/);
  assert.ok((await blobs()).every((name) => !name.startsWith(etag(shard))));
  server.reset();
  await assertWhole(await get());
});

test("a small file is checked as git does", async () => {
  server.wrong.set("config.json", Buffer.from('{"model_type":"lava!"}'));
  await refused("hub-integrity", /config\.json of org\/tiny/);
});

test("a wrong size is refused", async () => {
  server.wrong.set(shard, content(shard).slice(1));
  await refused("hub-integrity", /the server has 199999 bytes, its list of files says 200000/);
  answer(/store\/model-1/, (response) => void response.end(Buffer.concat([content(shard), content(shard)])));
  await refused("hub-integrity", /more than the promised 200000 bytes came|the server has 400000 bytes/);
  answer(/store\/model-1/, (response) => {
    // Without a length: what is too much shows as it comes.
    response.writeHead(200);
    response.write(content(shard));
    response.end(content(shard));
  });
  await refused("hub-integrity", /more than the promised 200000 bytes came/);
});

test("another commit or hash than the list's is refused", async () => {
  answer(/resolve/, (response) => void response.writeHead(200, { "x-repo-commit": "e".repeat(40) }).end());
  await refused("hub-integrity", /sends commit e{40} instead of 0123/);
  answer(/resolve.*model-1/, (response) => {
    response.writeHead(302, { location: "/x", "x-linked-etag": `"${"e".repeat(64)}"` }).end();
  });
  server.hook = ((hook) => (request, response, seen) => {
    if (seen.path !== "/x") return hook(request, response, seen);
    response.end();
    return true;
  })(server.hook);
  await refused("hub-integrity", /the server says hash e{64}/);
});

test("what the hub refuses is said with its cure", async () => {
  const api = (status: number, code: string, message = "") =>
    answer(/api/, (response) => void fail(response, status, code, message));
  api(401, "RepoNotFound", "Invalid username or password.");
  const error = await refused("hub-unauthorized", /no public model org\/tiny \(401\).*HF_TOKEN.*hf auth login/);
  assert.deepEqual([error.details.status, error.details.id], [401, "org/tiny"]);
  assert.match(String(error.details.url), /\/api\/models\/org\/tiny\/revision\/main$/);
  await refused("hub-unauthorized", /that the token may read/, {}, { token: "hf_secret" });
  api(403, "GatedRepo");
  await refused("hub-unauthorized", /org\/tiny is gated: accept its terms at http.*\/org\/tiny; then pass/);
  await refused("hub-unauthorized", /token's owner must have been given access/, {}, { token: "hf_secret" });
  api(401, "", "Invalid credentials in Authorization header");
  await refused("hub-unauthorized", /does not know the token/, {}, { token: "hf_secret" });
  api(418, "");
  await refused("hub-response", /answered 418/);
  server.reset();
  await refused(
    "hub-not-found",
    /there is no model org\/other at http.* \(nor a folder of that name here\)/,
    {},
    { id: "org/other" },
  );
  await refused("hub-not-found", /org\/tiny has no revision v9/, {}, { revision: "v9" });
  answer(/resolve.*config\.json/, (response) => void fail(response, 404, "EntryNotFound"));
  await refused("hub-not-found", /org\/tiny has no file config\.json/);
  assert.deepEqual(pauses, [], "none of them passes by waiting");
});

test("a server that is busy is asked again after the time that it says", async () => {
  answer(/api/, (response, turn) => {
    if (turn < 2) response.writeHead(429, { "retry-after": "7" }).end();
  });
  await get();
  assert.deepEqual(pauses.slice(0, 2), [7000, 7000]);
  answer(/api/, (response) => void response.writeHead(429, { "retry-after": "3600" }).end());
  cacheDir = join(folder, "limited");
  const error = await refused("hub-rate-limited", /a pause for 3600 s.*pass a token/);
  assert.deepEqual([error.details.retryAfter, error.details.status], [3600, 429]);
});

test("errors of the server are tried again, five times in all, with growing pauses", async () => {
  answer(/store\/model-1/, (response, turn) => {
    // An expired address of the storage counts as well.
    if (turn < 3) response.writeHead(turn === 0 ? 403 : 503).end();
  });
  await assertWhole(await get());
  cacheDir = join(folder, "broken");
  pauses = [];
  answer(/api/, (response) => void response.writeHead(500).end());
  const error = await refused("hub-network", /the server answered 500 for org\/tiny/);
  assert.equal(error.details.status, 500);
  assert.equal(pauses.length, 4);
  for (const [at, pause] of pauses.entries()) assert.ok(pause >= 375 * 2 ** at && pause <= 625 * 2 ** at);
});

test("a server that is not there is named", async () => {
  await refused("hub-network", /cannot download org\/tiny: /, {}, { endpoint: "http://127.0.0.1:1" });
});

test("names that lead out of the folder are refused", async () => {
  const indexed = (name: string) =>
    server.files.set("model.safetensors.index.json", Buffer.from(JSON.stringify({ weight_map: { a: name } })));
  for (const name of [
    "../../evil.safetensors",
    "/evil.safetensors",
    "a/b.safetensors",
    "..\\evil.safetensors",
    "evil.sh",
  ]) {
    indexed(name);
    await refused("hub-response", /not a plain name of a \.safetensors file/);
  }
  indexed("model-9.safetensors");
  await refused("hub-response", /names the file model-9\.safetensors, which the model does not have/);
  server.files.set("../config.json", new Uint8Array(1));
  await refused("hub-response", /\.\.\/config\.json`, whose name leads elsewhere/);
});

test("lists that no hub sends are refused", async () => {
  for (const body of [
    "no json",
    "null",
    '{"sha":"main","siblings":[]}',
    `{"sha":"${"a".repeat(40)}","siblings":[null]}`,
  ]) {
    answer(/api/, (response) => void response.end(body));
    await refused("hub-response", /the server's list of files/);
  }
  server.reset();
  answer(/api/, (response) => void response.writeHead(302, { location: "/api/again" }).end());
  await refused("hub-response", /too many redirects/);
  answer(/api/, (response) => void response.writeHead(302, { location: "file:///etc/passwd" }).end());
  await refused("hub-response", /redirects to an address that is not followed/);
});

test("a model without safetensors says what there is", async () => {
  server.files = new Map([...smallFiles()].filter(([name]) => !/safetensors/.test(name)));
  server.files.set("pytorch_model.bin", new Uint8Array(1));
  const error = await refused(
    "hub-files",
    /org\/tiny has neither model\.safetensors nor .*; it has README\.md, config\.json, pytorch_model\.bin, tokenizer\.json/,
  );
  assert.deepEqual(error.details.files, ["README.md", "config.json", "pytorch_model.bin", "tokenizer.json"]);
  assert.deepEqual(server.fetched, []);
});

test("a full disk says how much is needed, and the next load goes on", async () => {
  const errno = (code: string) => Object.assign(new Error(code), { code });
  let room = 250_000;
  const full = {
    write: async (...given: Parameters<System["write"]>) => {
      room -= given[1].length;
      if (room < 0) throw errno("ENOSPC");
      await machine.write(...given);
    },
  };
  const error = await refused(
    "hub-disk",
    /the disk of .*cache-\d+ is full; \d+ bytes are needed: free some, or set/,
    full,
  );
  assert.equal(error.details.errno, "ENOSPC");
  assert.ok((error.details.needed as number) > 0 && (error.details.needed as number) < 400_100);
  const left = (await blobs()).filter((name) => name.endsWith(".incomplete"));
  assert.ok(left.length > 0);
  // Whether there is something to go on from depends on the pieces in which files come; resuming is tested above.
  await assertWhole(await get());
  const quota = { write: () => Promise.reject(errno("EDQUOT")) };
  cacheDir = join(folder, "quota");
  assert.equal((await refused("hub-disk", /is full/, quota)).details.errno, "EDQUOT");
});

test("too little room is found out before the first byte", async () => {
  const error = await refused("hub-disk", /400\d+ bytes are needed, 1000 are free/, { free: async () => 1000 });
  assert.equal(error.details.free, 1000);
  // The index only, which says what else there is.
  assert.equal(server.fetched.length, 1);
});

test("a cache that is no folder is an error of the disk", async () => {
  await writeFile(cacheDir, "a file");
  await refused("hub-disk", /cannot write to the cache .* \((ENOTDIR|EEXIST)\)/);
});

test("a file that fails stops the others", async () => {
  server.wrong.set("model-2.safetensors", content(shard));
  answer(/store\/model-1/, (response) => {
    // Would take for ever.
    response.writeHead(200, { "content-length": size });
    response.write(content(shard).subarray(0, 100));
  });
  const started = performance.now();
  await refused("hub-integrity", /model-2\.safetensors/);
  assert.ok(performance.now() - started < 5000);
});
