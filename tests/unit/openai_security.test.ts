// The attacks that other servers have met, against this handler: one test per group of advisories.
import assert from "node:assert/strict";
import { test } from "node:test";
import { OptionError } from "../../ts/index.ts";
import { type OpenaiOptions, openai } from "../../ts/openai/index.ts";
import { Pictures } from "../../ts/openai/pictures.ts";
import { Refusal } from "../../ts/openai/refusal.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import type { FakeNative } from "../kit/fake_native.ts";
import { type Failure, get, hello, post, refusal, serving } from "../kit/openai.ts";

const open = fakeModels();
const start = async (options: OpenaiOptions = {}, fake: FakeNative = native()) => ({
  fake,
  server: serving(await open(fake), options),
});
const showing = (url: string) => ({
  ...hello,
  messages: [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }],
});

test("addresses of pictures: only https at the allowed hosts, however the address is written", async () => {
  const pictures = (): Pictures => new Pictures({ images: 1000, imageHosts: ["images.example.com", "*.cdn.example"] });
  for (const url of [
    ...["https://images.example.com/a.png", "https://IMAGES.EXAMPLE.COM/a", "https://a.b.cdn.example/x?y=1#z"],
    // All of these are that host, as whoever fetches reads them.
    ...["https:\\\\images.example.com\\a.png", "https://images.example.com:443/a", " https://images.example.com/\t"],
    "https://images%2Eexample.com/a",
  ]) {
    assert.ok(pictures().read(url, "p").name.startsWith("https://"), url);
  }
  for (const url of [
    ...[
      "http://images.example.com/a",
      "ftp://images.example.com/a",
      "file:///etc/passwd",
      "file://images.example.com/a",
    ],
    ...[
      "/etc/passwd",
      "a.png",
      "",
      "//images.example.com/a",
      "javascript:alert(1)",
      "blob:https://images.example.com/1",
    ],
    ...["https://example.com/a", "https://images.example.com.evil.net/a", "https://evilimages.example.com/a"],
    ...[
      "https://cdn.example/a",
      "https://xcdn.example/a",
      "https://evil.net/images.example.com",
      "https://evil.net?.cdn.example",
    ],
    ...["https://evil.net#.cdn.example", "https://evil.net\\.cdn.example", "https://evil.net\\@images.example.com/a"],
    ...[
      "https://user@images.example.com/a",
      "https://images.example.com@evil.net/a",
      "https://u:p@images.example.com/",
    ],
    ...["https://images.example.com:8443/a", "https://images.example.com:22/", "https://images.example.com./a"],
    ...["https://127.0.0.1/a", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://[::1]/"],
    ...["https://[::ffff:169.254.169.254]/", "https://169.254.169.254/latest/meta-data/", "https://localhost/"],
    ...[
      "https://images.example.com%00.evil.net/",
      "https://images。example。com.evil.net/",
      `https://images.example.com/${"x".repeat(9000)}`,
    ],
  ]) {
    assert.throws(
      () => pictures().read(url, "p"),
      (error) => error instanceof Refusal && error.status === 400,
      url,
    );
  }
  for (const host of ["*", "*.", "https://a.example", "a.example/x", "a.example:443", "localhost", "", "*.*.example"]) {
    assert.throws(() => openai({} as never, { imageHosts: [host] }), OptionError, host);
  }
});

test("an allowed name that leads to a network of ours is not fetched", async () => {
  const { server, fake } = await start({ imageHosts: ["localhost.localdomain", "*.test.invalid"] });
  for (const url of ["https://localhost.localdomain/a.png", "https://metadata.test.invalid/"]) {
    const response = await post(server, showing(url));
    const { error } = (await response.json()) as Failure;
    assert.deepEqual([response.status, error.code], [400, "invalid_image"], url);
    assert.doesNotMatch(error.message, /127\.0\.0\.1|::1/);
  }
  assert.equal(fake.requests.length, 0);
});

test("names in `host` that are none of ours are refused before the key, and with a port they are the same", async () => {
  const { server } = await start({ hosts: ["localhost", "127.0.0.1", "[::1]"], keys: ["k"] });
  for (const host of ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:8000"]) {
    assert.equal((await get(server, "/v1/models", { host, "x-api-key": "k" })).status, 200, host);
  }
  for (const host of [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:80",
    "[::2]",
    "localhost:80:80",
    "",
  ]) {
    assert.deepEqual(await refusal(get(server, "/v1/models", { host })), [403, "host_not_allowed", null], host);
  }
});

test("pages of other origins are not let in; those that are welcome are asked for the exact origin", async () => {
  const asked = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
  };
  const preflight = (server: ReturnType<typeof serving>, origin: string) =>
    server.fetch(
      new Request("http://localhost/v1/chat/completions", { method: "OPTIONS", headers: { ...asked, origin } }),
    );
  const { server } = await start({ origins: ["https://a.example"], keys: ["k"] });
  const welcome = await preflight(server, "https://a.example");
  assert.deepEqual(
    [
      welcome.status,
      welcome.headers.get("access-control-allow-origin"),
      welcome.headers.get("access-control-allow-headers"),
    ],
    [204, "https://a.example", "authorization, content-type"],
  );
  assert.equal(welcome.headers.get("access-control-allow-credentials"), null);
  const closed = (await start({ keys: ["k"] })).server;
  for (const [where, origin] of [
    ...["https://b.example", "https://a.example.evil.net", "http://a.example", "null", ""].map(
      (from) => [server, from] as const,
    ),
    [closed, "https://a.example"],
  ] as const) {
    const response = await preflight(where, origin);
    assert.deepEqual([response.status, response.headers.get("access-control-allow-origin")], [401, null], origin);
  }
  for (const origin of ["*", "https://*.example", "a.example", "https://a.example/", "null"]) {
    assert.throws(() => openai({} as never, { origins: [origin] }), OptionError, origin);
  }
});

test("templates and their arguments are not taken from a request", async () => {
  const { server, fake } = await start();
  for (const [param, value] of Object.entries({
    ...{ chat_template: "{{ x }}", chat_template_kwargs: { enable_thinking: true } },
  })) {
    assert.deepEqual(await refusal(post(server, { ...hello, [param]: value })), [400, "unsupported_parameter", param]);
  }
  const message = { role: "user", content: "x", chat_template: "{{ x }}", tool_calls: [{ function: { name: "f" } }] };
  assert.equal((await post(server, { ...hello, messages: [message] })).status, 200);
  assert.deepEqual(fake.requests[0]?.request.op === "generate" && fake.requests[0].request.messages, [
    { role: "user", content: "x" },
  ]);
});

test("deep and long schemas of tools end in a refusal, and the server answers on", async () => {
  const { server } = await start();
  const tools = (parameters: unknown) => ({
    ...hello,
    tools: [{ type: "function", function: { name: "f", parameters } }],
  });
  // As text: some runtimes do not write JSON that deep.
  const deep = JSON.stringify(tools("DEEP")).replace('"DEEP"', `${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`);
  const wide = { enum: Array.from({ length: 50_000 }, (_, at) => `${at}`) };
  const nested = { pattern: "(".repeat(70_000) };
  for (const parameters of [wide, nested]) {
    assert.deepEqual(await refusal(post(server, tools(parameters))), [400, "invalid_value", "tools"]);
  }
  assert.deepEqual(await refusal(post(server, deep)), [...[400, "invalid_value", "tools[0].function.parameters"]]);
  const body = `{"model":"prefixkv","messages":${"[".repeat(200_000)}`;
  assert.equal((await post(server, body)).status, 400);
  assert.equal((await post(server, hello)).status, 200);
});

test("an answer has a deadline, in the queue too", async () => {
  const { server, fake } = await start({ answerTime: 60 }, native({ stallAfter: 1 }));
  const [first, second] = [post(server, hello), post(server, hello)];
  for (const answer of [first, second]) {
    const response = await answer;
    const { error } = (await response.json()) as Failure;
    assert.deepEqual(
      [response.status, error.code, response.headers.get("x-should-retry")],
      [504, "answer_timeout", "false"],
    );
  }
  assert.ok(fake.tickets.length > 0 && fake.tickets.every(({ cancelled }) => cancelled));
  const stream = await post(server, { ...hello, stream: true });
  assert.match(await stream.text(), /event: error\ndata: .*answer_timeout/);
});

test("errors hold no paths and no addresses of the machine", async () => {
  const message = "cannot read /srv/secret/model.safetensors at 0x7f00deadbeef";
  for (const code of ["internal", "model-file", "device"]) {
    const { server } = await start({}, native({ requestError: { code, message, details: {} } }));
    const response = await post(server, hello);
    assert.ok(response.status >= 500);
    assert.doesNotMatch(await response.text(), /srv|secret|0x7f/);
  }
});
