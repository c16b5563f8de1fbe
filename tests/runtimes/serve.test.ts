// `prefixkv serve` and `prefixkv chat` as processes under the runtime of the tests.
import assert from "node:assert/strict";
import { chmod, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import OpenAI from "openai";
import { samplePicture } from "../../ts/sample.ts";
import { assertDocumented } from "../docs/cli_schema.ts";
import { scene } from "../engine/scenes.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { type Outcome, root, runScript } from "./spawn.ts";

const main = join(root, "ts", "cli", "main.ts");
const folder = temporaryFolder("serve");
const unix = { skip: process.platform === "win32" };

interface Served {
  address: string;
  end(signal: NodeJS.Signals): void;
  ended: Promise<Outcome>;
}

/** Starts a server and waits for the line with its address. */
async function served(args: string[], env: Record<string, string> = {}): Promise<Served> {
  const { promise, resolve, reject } = Promise.withResolvers<Omit<Served, "ended">>();
  const ended = runScript(main, ["serve", "--port", "0", ...args], {
    env,
    onOut: (out, kill) => {
      const address = /^listening on (\S+)\n/.exec(out)?.[1];
      if (address !== undefined) resolve({ address, end: kill });
    },
  });
  ended.then(({ err }) => reject(new Error(err)), reject);
  return { ...(await promise), ended };
}

/** The status of a request with headers that `fetch` does not let one set. */
function statusOf(address: string, headers: Record<string, string>, method = "GET"): Promise<[number, string]> {
  return new Promise((resolve, reject) => {
    const asked = request(`${address}/v1/models`, { headers, method }, (response) => {
      response.resume();
      response.on("end", () => {
        resolve([response.statusCode ?? 0, response.headers["access-control-allow-origin"] ?? ""]);
      });
    });
    asked.on("error", reject);
    asked.end();
  });
}

test("serve answers OpenAI's client, lets answers end at SIGTERM, and refuses new ones", unix, async () => {
  const { address, end, ended } = await served([
    "--method",
    "streaming",
    "--keep",
    "0.5",
    "--cors",
    "https://a.example",
  ]);
  assert.match(address, /^http:\/\/127\.0\.0\.1:\d+$/);
  const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });
  assert.deepEqual(
    (await client.models.list()).data.map(({ id }) => id),
    ["tiny-llava"],
  );
  const url = `data:image/png;base64,${Buffer.from(await samplePicture()).toString("base64")}`;
  const stream = await client.chat.completions.create({
    ...{ model: "tiny-llava", stream: true, max_tokens: 400 },
    ...({ ignore_eos: true } as object),
    messages: [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }],
  });
  let chunks = 0;
  let reason = "";
  for await (const { choices } of stream) {
    chunks += 1;
    reason = choices[0]?.finish_reason ?? "";
    if (chunks !== 3) continue;
    const port = new URL(address).port;
    // A page whose name leads here, and pages of origins that are welcome and not.
    assert.deepEqual(await statusOf(address, { host: `evil.example:${port}` }), [403, ""]);
    assert.deepEqual(await statusOf(address, { host: `localhost:${port}` }), [200, ""]);
    assert.deepEqual(await statusOf(address, { origin: "https://a.example" }), [200, "https://a.example"]);
    assert.deepEqual(await statusOf(address, { origin: "https://b.example" }), [200, ""]);
    end("SIGTERM");
  }
  assert.deepEqual([chunks > 300, reason], [true, "length"]);
  const { code, err } = await ended;
  assert.equal(code, 0, err);
  assert.match(err, /letting the answers that run end/);
  await assert.rejects(client.models.list());
});

test("serve needs a key where other machines can ask, from a file or the environment", unix, async () => {
  const bare = await runScript(main, ["serve", "--port", "0", "--host", "0.0.0.0"]);
  assert.equal(bare.code, 2);
  assert.match(bare.err, /--insecure/);
  const file = join(folder, "keys");
  await writeFile(file, "# ours\nkey-one\n\nkey-two\n");
  await chmod(file, 0o644);
  const args = ["--host", "0.0.0.0", "--key-file", file, "--id", "mine"];
  const { address, end, ended } = await served(args, { PREFIXKV_API_KEY: "key-three" });
  const at = address.replace("0.0.0.0", "127.0.0.1");
  for (const [key, status] of [
    ["key-one", 200],
    ["key-two", 200],
    ["key-three", 200],
    ["# ours", 401],
    ["", 401],
  ] as const) {
    assert.deepEqual(
      await statusOf(at, key === "" ? {} : { "x-api-key": key, host: "any.example" }),
      [status, ""],
      key,
    );
  }
  end("SIGINT");
  const { code, err, out } = await ended;
  assert.equal(code, 0, err);
  assert.match(err, /others on this machine can read/);
  assert.doesNotMatch(out + err, /key-(one|two|three)/);
});

test("a header of a megabyte is refused, and the server answers on", unix, async () => {
  const { address, end, ended } = await served([]);
  const port = Number(new URL(address).port);
  const answer = await new Promise<string>((resolve) => {
    let text = "";
    const socket = connect(port, "127.0.0.1", () => {
      socket.write(`GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${"x".repeat(1 << 20)}\r\n\r\n`);
    });
    socket.on("data", (data) => {
      text += data;
      socket.end();
    });
    // Closed without a word, in the middle of the header, is as good.
    socket.on("error", () => {});
    socket.on("close", () => resolve(text));
  });
  assert.match(answer, /^$|^HTTP\/1\.1 4\d\d /);
  assert.deepEqual(await statusOf(address, {}), [200, ""]);
  end("SIGINT");
  assert.equal((await ended).code, 0);
});

test("a port that is taken is an error with a reason", unix, async () => {
  const { address, end, ended } = await served([]);
  const { port } = new URL(address);
  const second = await runScript(main, ["serve", "--port", port, "--json"]);
  assert.equal(second.code, 1);
  assert.match(second.err, /cannot listen at port \d+ of 127\.0\.0\.1: another program has it/);
  assertDocumented("error", JSON.parse(second.out));
  end("SIGINT");
  assert.equal((await ended).code, 0);
});

test("chat keeps the conversation and shows pictures by path", async () => {
  async function* lines(): AsyncGenerator<string, void, undefined> {
    yield `/image none.png\n/nonsense\n/image ${scene.image}\n\n${scene.question}\n`;
    yield "Describe the image in detail.";
  }
  const { code, out, err } = await runScript(main, ["chat", "--json", "--max-tokens", "100"], { input: lines() });
  assert.equal(code, 0, err);
  assert.match(err, /error\[image\]: .*none\.png/);
  assert.match(err, /\/image PATH {2}shows a picture/);
  const printed = JSON.parse(out);
  assertDocumented("chat --json", printed);
  assert.deepEqual(
    printed.turns.map(({ user, images }: { user: string; images: string[] }) => [user, images.length]),
    [
      [scene.question, 1],
      ["Describe the image in detail.", 0],
    ],
  );
  for (const { color, shape } of scene.objects) assert.ok(printed.turns[0].text.includes(`${color} ${shape}`), out);
});

test("Ctrl-C ends an answer and not the chat", unix, async () => {
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let seen = 0;
  async function* lines(): AsyncGenerator<string, void, undefined> {
    yield "Describe the image in detail.\n";
    await first.promise;
    yield "And again.\n";
    await second.promise;
    yield "/exit\n";
  }
  const { code, err } = await runScript(main, ["chat", scene.image, "--ignore-eos", "--max-tokens", "800"], {
    input: lines(),
    onOut: (out, kill) => {
      const answers = [first, second][seen === 0 ? 0 : 1];
      const more = seen === 0 ? 20 : seen + 20;
      if (out.length < more || (seen > 0 && !out.slice(seen).trim())) return;
      if (seen < 0) return;
      seen = seen === 0 ? out.length + 1 : -1;
      kill("SIGINT");
      setTimeout(() => answers?.resolve(), 500);
    },
  });
  assert.equal(code, 0, err);
  assert.equal(err.match(/^\[ended\]$/gm)?.length, 2, err);
});
