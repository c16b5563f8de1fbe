import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { isPublic } from "../../ts/images/addresses.ts";
import { fetchImage, type Network } from "../../ts/images/fetch.ts";
import { type ImagePolicy, image, type MediaError, type Model, OptionError } from "../../ts/index.ts";
import { openModel } from "../../ts/load.ts";
import { isImage } from "../../ts/media.ts";
import { FakeNative } from "../kit/fake_native.ts";

const content = new Uint8Array([137, 80, 78, 71]);
let folder: string;
let server: Server;
let port: number;
let base: string;
const heard: { url: string; host: string }[] = [];

const routes: Record<string, (response: ServerResponse) => void> = {
  "/image": (response) => void response.end(content),
  "/gzip": (response) => void response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync(content)),
  "/deflate": (response) => void response.writeHead(200, { "content-encoding": "deflate" }).end(deflateSync(content)),
  "/br": (response) => void response.writeHead(200, { "content-encoding": "br" }).end(brotliCompressSync(content)),
  "/zstd": (response) => void response.writeHead(200, { "content-encoding": "zstd" }).end(content),
  "/damaged": (response) => void response.writeHead(200, { "content-encoding": "gzip" }).end("no gzip, PRIVATE"),
  "/bomb": (response) => {
    const zeros = new Uint8Array(80 << 20);
    response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync(zeros));
  },
  "/cut": (response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write(content, () => response.destroy());
  },
  "/never": () => {},
  "/slow": (response) => {
    const timer = setInterval(() => response.write("x"), 10);
    response.on("close", () => clearInterval(timer));
  },
  "/loop": (response) => void response.writeHead(302, { location: "/loop" }).end(),
  "/nowhere": (response) => void response.writeHead(302).end(),
  "/secret": (response) => void response.writeHead(403).end("PRIVATE"),
};

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-policy-"));
  server = createServer((request, response) => {
    const url = new URL(request.url ?? "", "http://x");
    heard.push({ url: url.pathname, host: request.headers.host ?? "" });
    const target = url.searchParams.get("to");
    if (target !== null) response.writeHead(Number(url.searchParams.get("status") ?? 302), { location: target }).end();
    else (routes[url.pathname] ?? ((unknown) => void unknown.writeHead(404).end()))(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
  base = `http://127.0.0.1:${port}`;
});

after(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true });
});

/** A network in which every name is this machine, and this machine counts as public or not. */
function network(reachable: boolean, addresses: string[][] = [["127.0.0.1"]]): Network & { lookups: string[] } {
  const lookups: string[] = [];
  return {
    lookups,
    lookup: async (host) => {
      const found = addresses[Math.min(lookups.length, addresses.length - 1)] ?? [];
      lookups.push(host);
      return found.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
    },
    seconds: 30,
    isPublic: (address) => isPublic(address) || (reachable && address === "127.0.0.1"),
  };
}

const refusal = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "it was read",
    (error: unknown) => {
      assert.ok(error instanceof Error);
      const told = `${error.message} ${JSON.stringify((error as MediaError).details ?? {})} ${String(error.cause ?? "")}`;
      assert.doesNotMatch(told, /PRIVATE|SECRET/);
      assert.ok(told.length < 700, told);
      return error.message;
    },
  );

test("addresses of this machine, its networks and nowhere are not public, however they are written", () => {
  const closed = `0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.9 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16 100.100.100.200
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe 0:0:0:0:0:ffff:7f00:1 64:ff9b::127.0.0.1 64:ff9b::a00:1
    64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1 3fff::1
    5f00::1 fc00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 [::1] 4000::1 8000::1
    localhost example.com 127.1 2130706433 0x7f.1 1.2.3 1.2.3.4.5 1.2.3.256`;
  for (const address of closed.split(/\s+/)) assert.equal(isPublic(address), false, address);
  const open = `1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.1 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
    168.63.129.17 2606:4700:4700::1111 2001:4860:4860::8888 2001:200::1 2a00:1450:4001:81b::200e 2000::1 ::ffff:8.8.8.8
    64:ff9b::8.8.8.8 2002:808:808::1 [2606:4700::1111]`;
  for (const address of open.split(/\s+/)) assert.equal(isPublic(address), true, address);
});

test("by default nothing but the public internet is fetched, whatever the host is called", async () => {
  const hosts = `127.0.0.1 localhost localhost. 127.1 127.0.1 2130706433 0x7f000001 0177.0.0.1 017700000001 0x7f.0.0.1 0 0.0.0.0 [::1] [::]
    [::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::7f00:1] [fe80::1] [fd00:ec2::254] 169.254.169.254 10.1.2.3 192.168.1.1 172.20.0.1
    100.100.100.200 １２７.0.0.1 127。0。0。1`;
  const before = heard.length;
  for (const host of hosts.split(/\s+/)) {
    const said = await refusal(image(`http://${host}:${port}/image`).bytes());
    assert.match(said, /is not on the public internet|host has no address/, host);
  }
  assert.equal(heard.length, before);
});

test("names are judged by all their addresses, looked up once, and the connection goes to those", async () => {
  const url = new URL(`http://pictures.example:${port}/image`);
  assert.match(await refusal(fetchImage(url, "public", undefined, network(false))), /not on the public internet/);
  const mixed = network(true, [["127.0.0.1", "10.0.0.1"]]);
  assert.match(await refusal(fetchImage(url, "public", undefined, mixed)), /not on the public internet/);
  // A second look would find another machine: there is none.
  const rebinding = network(true, [["127.0.0.1"], ["10.0.0.1"]]);
  const before = heard.length;
  assert.deepEqual([...(await fetchImage(url, "public", undefined, rebinding))], [...content]);
  assert.deepEqual(rebinding.lookups, ["pictures.example"]);
  assert.deepEqual(heard.slice(before), [{ url: "/image", host: `pictures.example:${port}` }]);
  assert.match(await refusal(fetchImage(url, "public", undefined, network(true, [[]]))), /not on the public internet/);
});

test("a pinned connection still wants the certificate of the name", async () => {
  const fixture = (name: string): Promise<string> =>
    readFile(new URL(`../fixtures/tls/${name}.pem`, import.meta.url), "utf8");
  const [key, cert] = await Promise.all([fixture("key"), fixture("certificate")]);
  const secure = createSecureServer({ key, cert }, (_, response) => void response.end(content));
  await new Promise<void>((resolve) => secure.listen(0, "127.0.0.1", resolve));
  const at = (host: string): URL => new URL(`https://${host}:${(secure.address() as AddressInfo).port}/image`);
  const trusting = { ...network(true), ca: cert };
  assert.deepEqual([...(await fetchImage(at("pictures.example"), "public", undefined, trusting))], [...content]);
  for (const [host, net] of [
    ["other.example", trusting],
    ["pictures.example", network(true)],
    ["127.0.0.1", trusting],
  ] as const) {
    assert.match(await refusal(fetchImage(at(host), "any", undefined, net)), /its certificate is not accepted/, host);
  }
  secure.closeAllConnections();
  await new Promise((resolve) => secure.close(resolve));
});

test("every redirect is judged anew", async () => {
  const via = (to: string, status = 302): URL => {
    return new URL(`http://a.example:${port}/?to=${encodeURIComponent(to)}&status=${status}`);
  };
  for (const status of [301, 302, 303, 307, 308]) {
    const there = await fetchImage(via("/image", status), "public", undefined, network(true));
    assert.deepEqual([...there], [...content]);
  }
  const rebound = network(true, [["127.0.0.1"], ["192.168.0.9"]]);
  const target = `http://b.example:${port}/image`;
  assert.match(await refusal(fetchImage(via(target), "public", undefined, rebound)), /b\.example.* not on the public/);
  assert.deepEqual(rebound.lookups, ["a.example", "b.example"]);
  for (const [to, reason] of [
    ["http://10.0.0.1/latest/meta-data", /http:\/\/10\.0\.0\.1 is not on the public internet/],
    ["http://169.254.169.254/SECRET", /169\.254\.169\.254 is not on the public internet/],
    ["file:///etc/passwd", /leads to a file: address/],
    ["data:image/png;base64,iVBORw0KGgo=", /leads to a data: address/],
    ["http://user:SECRET@b.example/", /has a user name or a password/],
    ["http://", /redirects to no address/],
  ] as const) {
    assert.match(await refusal(fetchImage(via(to), "public", undefined, network(true))), reason);
  }
  const loop = new URL(`http://a.example:${port}/loop`);
  assert.match(await refusal(fetchImage(loop, "public", undefined, network(true))), /redirects more than 10 times/);
  const nowhere = new URL(`http://a.example:${port}/nowhere`);
  assert.match(await refusal(fetchImage(nowhere, "public", undefined, network(true))), /redirects to no address/);
  const seen: string[] = [];
  const rule = ({ hostname }: URL): boolean => seen.push(hostname) > 0 && hostname === "a.example";
  assert.match(await refusal(fetchImage(via(target), rule, undefined, network(true))), /does not allow http:\/\/b\.ex/);
  assert.deepEqual(seen, ["a.example", "b.example"]);
});

test("a function decides for each URL", async () => {
  const read = (fetch: ImagePolicy["fetch"]): Promise<Uint8Array> =>
    image(`${base}/image`, { fetch } as ImagePolicy).bytes();
  const allowing: ImagePolicy["fetch"][] = [
    "any",
    () => true,
    () => "any",
    async () => true,
    async () => "any" as const,
  ];
  for (const yes of allowing) {
    assert.equal((await read(yes)).length, 4);
  }
  const refusing: [ImagePolicy["fetch"], RegExp][] = [
    ["none", /does not allow/],
    [() => false, /does not allow/],
    [async () => "none" as const, /does not allow/],
    [() => "public", /not on the public internet/],
    [(() => 5) as never, /gave neither/],
    [(() => undefined) as never, /gave neither/],
    [
      () => {
        throw new Error("SECRET");
      },
      /has thrown an error/,
    ],
    [() => Promise.reject(new Error("SECRET")), /has thrown an error/],
  ];
  for (const [rule, reason] of refusing) assert.match(await refusal(read(rule)), reason);
  // Changes that the function makes to its URL have no effect.
  const bent = read((url) => {
    url.hostname = "10.0.0.1";
    return true;
  });
  assert.equal((await bent).length, 4);
});

test("errors say origin and path, and nothing of users, queries or contents", async () => {
  const secret = image(`${base}/secret?sig=SECRET#SECRET`, { fetch: "any" });
  assert.equal(secret.name, `${base}/secret`);
  assert.match(await refusal(secret.bytes()), /the server answered 403/);
  const user = image(`http://user:SECRET@127.0.0.1:${port}/image?key=SECRET`, { fetch: "any" });
  assert.equal(user.name, `${base}/image`);
  assert.match(await refusal(user.bytes()), /has a user name or a password in it; leave them out/);
  assert.match(await refusal(image(`${base}/damaged`, { fetch: "any" }).bytes()), /gzip compression is damaged/);
  for (const broken of [
    "http://user:SECRET@",
    "http://user:SECRET@[x/",
    "https://SECRET:@:99999/",
    "ftp://u:SECRET@h/x",
  ]) {
    assert.match(await refusal((async () => image(broken).bytes())()), /not a valid URL|ftp: addresses/);
  }
  assert.match(
    await refusal(image("http://127.0.0.1:1/x?SECRET", { fetch: "any" }).bytes()),
    /connection failed: ECONNREFUSED/,
  );
});

test("compression that was not asked for is undone within the limit; what is cut off is refused", async () => {
  for (const path of ["/gzip", "/deflate", "/br"]) {
    assert.deepEqual([...(await image(base + path, { fetch: "any" }).bytes())], [...content], path);
  }
  for (const [path, reason] of [
    ["/zstd", /compressed it in a way/],
    ["/bomb", /larger than 64 MiB/],
    ["/cut", /connection (broke|failed)/],
  ] as const) {
    assert.match(await refusal(image(base + path, { fetch: "any" }).bytes()), reason, path);
  }
});

test("a server that takes too long, at any stage, is given up", async () => {
  const net = { ...network(true), seconds: 0.2 };
  for (const path of ["/never", "/slow", "/?to=%2Fnever"]) {
    const url = new URL(`http://a.example:${port}${path}`);
    const start = performance.now();
    assert.match(await refusal(fetchImage(url, "public", undefined, net)), /the server took longer than 0\.2 s/, path);
    assert.ok(performance.now() - start < 2000, path);
  }
  const deaf = { ...net, lookup: () => new Promise<never>(() => {}) };
  const url = new URL("http://a.example/");
  assert.match(await refusal(fetchImage(url, "public", undefined, deaf)), /the server took longer/);
  const undecided = fetchImage(url, () => new Promise<never>(() => {}), undefined, net);
  assert.match(await refusal(undecided), /the server took longer/);
});

test("proxies of the environment are not used", async () => {
  const names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
  const old = names.map((name) => process.env[name]);
  for (const name of names) process.env[name] = "http://127.0.0.1:1";
  try {
    assert.equal((await image(`${base}/image`, { fetch: "any" }).bytes()).length, 4);
  } finally {
    names.forEach((name, index) => {
      if (old[index] === undefined) delete process.env[name];
      else process.env[name] = old[index];
    });
  }
});

test("plain strings and URLs among the images of a request are not trusted, image() is", async () => {
  const file = join(folder, "a.png");
  await writeFile(file, content);
  const models: Model[] = [];
  const ask = async (images: unknown[], policy?: ImagePolicy): Promise<string> => {
    const model = await openModel(new FakeNative(), "/m", policy === undefined ? {} : { images: policy });
    models.push(model);
    // As a body that is spread: what came as JSON.
    const read = async (body: object): Promise<string> =>
      (await refusal(Promise.resolve(model.generate(body as never)))) === "it was read" ? "read" : "refused";
    const raw = await read({ prompt: "<image>", images });
    const messages = [{ role: "user", content: "Hi" }];
    assert.equal(await read({ messages, images }), raw);
    if (isImage(images[0])) {
      assert.equal(await read({ messages: [{ role: "user", content: images }] }), raw);
    }
    return raw;
  };
  const url = pathToFileURL(file);
  const remote = `${base}/image`;
  for (const bare of [file, url, url.href]) {
    assert.equal(await ask([bare]), "refused");
    assert.equal(await ask([image(bare)]), "read");
    assert.equal(await ask([bare], { files: "any" }), "read");
    assert.equal(await ask([bare], { files: folder }), "read");
    assert.equal(await ask([bare], { files: [tmpdir(), pathToFileURL(folder)] }), "read");
    assert.equal(await ask([image(bare)], { files: "none" }), "refused");
    assert.equal(await ask([image(bare)], { files: join(folder, "other") }), "refused");
    assert.equal(await ask([image(bare, { files: "any" })], { files: "none" }), "read");
  }
  for (const bare of [remote, new URL(remote)]) {
    assert.equal(await ask([bare]), "refused");
    assert.equal(await ask([image(bare)]), "refused");
    assert.equal(await ask([bare], { fetch: "any" }), "read");
    assert.equal(await ask([bare], { fetch: ({ port: found }) => Number(found) === port }), "read");
    assert.equal(await ask([image(bare, { fetch: "any" })]), "read");
    assert.equal(await ask([image(bare, { fetch: "none" })], { fetch: "any" }), "refused");
  }
  for (const there of [content, new Blob([content]), "data:image/png;base64,iVBORw=="]) {
    assert.equal(await ask([there], { fetch: "none", files: "none" }), "read");
  }
  await Promise.all(models.map((model) => model.dispose()));
});

test("a folder holds what lies in it, links followed, and tells nothing of what lies elsewhere", async () => {
  const inner = join(folder, "allowed");
  await mkdir(join(inner, "deep"), { recursive: true });
  await writeFile(join(inner, "deep", "b.png"), content);
  await writeFile(join(folder, "allowed-not.png"), content);
  await writeFile(join(folder, "outside.png"), content);
  await symlink(join(folder, "outside.png"), join(inner, "link.png"));
  await symlink(folder, join(inner, "up"));
  await symlink(join(inner, "deep"), join(folder, "way-in"));
  const read = (path: string): Promise<string> => refusal(image(path, { files: inner }).bytes());
  for (const path of [
    join(inner, "deep", "b.png"),
    join(folder, "way-in", "b.png"),
    join(inner, "..", "allowed", "deep", "b.png"),
  ]) {
    assert.equal(await read(path), "it was read", path);
  }
  const secrets = [
    "allowed-not.png",
    "outside.png",
    "allowed/link.png",
    "allowed/up/outside.png",
    "allowed/../outside.png",
    "none.png",
  ];
  const said = new Set<string>();
  for (const path of secrets.map((path) => join(folder, path))) said.add((await read(path)).replace(/^.*: /, ""));
  said.add((await read(inner)).replace(/^.*: /, ""));
  assert.deepEqual([...said], ["it is in none of the folders that `images.files` of load allows"]);
});

test("a policy that is none is refused with its path", async () => {
  for (const [policy, pattern] of [
    [{ fetch: "all" }, /`images\.fetch` of load must be "public", "any", "none" or a function, found "all"/],
    [{ fetch: true }, /`images\.fetch`/],
    [{ files: 5 }, /`images\.files` of load must be a string or a URL, found 5/],
    [{ files: ["a", null] }, /`images\.files\[1\]`/],
    [{ files: "" }, /`images\.files` of load is empty/],
    [{ files: new URL("https://example.com") }, /must be a path or a file: URL/],
    [{ fetsh: "none" }, /`images` of load has no `images\.fetsh`; did you mean `fetch`/],
    [[], /`images` of load must be a plain object/],
    ["none", /`images` of load must be a plain object, found "none"/],
  ] as const) {
    const opened = openModel(new FakeNative(), "/m", { images: policy as never });
    await assert.rejects(
      opened,
      (error) => error instanceof OptionError && pattern.test(error.message),
      String(pattern),
    );
  }
});

test("pipes, devices, sockets and files without a true size are refused or bounded", async () => {
  const fifo = join(folder, "fifo");
  execFileSync("mkfifo", [fifo]);
  const linked = join(folder, "zero.png");
  await symlink("/dev/zero", linked);
  for (const [path, reason] of [
    ["/dev/zero", /it is a device/],
    ["/dev/null", /it is a device/],
    ["/dev/random", /it is a device/],
    [linked, /it is a device/],
    [fifo, /it is a pipe/],
    [folder, /it is a folder/],
    ["/proc/self/mem", /cannot read the image|EIO/],
  ] as const) {
    const start = performance.now();
    assert.match(await refusal(image(path).bytes()), reason, path);
    assert.ok(performance.now() - start < 2000, path);
  }
  // Below /proc a size is 0, and there is content all the same; Deno keeps it from programs that may not do everything.
  const status = image("/proc/self/status");
  if ("Deno" in globalThis) assert.match(await refusal(status.bytes()), /it was read|--allow-read/);
  else assert.ok((await status.bytes()).length > 100);
});
