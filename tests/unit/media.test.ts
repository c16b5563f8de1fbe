import assert from "node:assert/strict";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { AbortError, image, MediaError } from "../../ts/index.ts";
import { maxImageBytes } from "../../ts/media.ts";

const content = new Uint8Array([137, 80, 78, 71]);
let folder: string;
let file: string;
let server: Server;
let address: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-media-"));
  file = join(folder, "a b.png");
  await writeFile(file, content);
  server = createServer((request, response) => {
    if (request.url === "/image") response.end(content);
    else if (request.url === "/huge") {
      const chunk = new Uint8Array(1 << 20);
      const more = (): void => {
        if (!response.destroyed) response.write(chunk, () => setImmediate(more));
      };
      more();
    } else if (request.url !== "/never") response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(folder, { recursive: true });
});

test("reads paths, file URLs, data URLs, servers, bytes and blobs", async () => {
  const sources = [
    file,
    relative(process.cwd(), file),
    pathToFileURL(file),
    pathToFileURL(file).href,
    `data:image/png;base64,${Buffer.from(content).toString("base64")}`,
    `${address}/image`,
    new URL(`${address}/image`),
    content,
    Buffer.from(content),
    content.buffer.slice(0),
    new Blob([content]),
    new File([content], "scene.png"),
  ];
  for (const source of sources)
    assert.deepEqual([...(await image(source, near).bytes())], [...content], String(source));
});

test("reads once, and gives copies", async () => {
  const path = join(folder, "once.png");
  await writeFile(path, content);
  const once = image(path);
  (await once.bytes()).fill(0);
  await rm(path);
  assert.deepEqual([...(await once.bytes())], [...content]);
});

/** The servers of these tests are on this machine. */
const near = { fetch: "any" } as const;

const rejected = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof MediaError, String(error));
  assert.equal(error.code, "image");
  assert.match(error.message, pattern);
  return true;
};

test("says what is wrong with a source", async () => {
  await assert.rejects(image(join(folder, "none.png")).bytes(), rejected(/none\.png: there is no such file/));
  await assert.rejects(image(folder).bytes(), rejected(/it is a folder/));
  await assert.rejects(image(new Uint8Array()).bytes(), rejected(/it is empty/));
  await assert.rejects(image(`${address}/none`, near).bytes(), rejected(/answered 404/));
  await assert.rejects(image("data:image/png;base64,*").bytes(), rejected(/data:image/));
  assert.throws(() => image("http://"), rejected(/not a valid URL/));
  assert.throws(() => image(new URL("ftp://example.com/a.png")), rejected(/ftp: addresses are not read; use a file:/));
  assert.throws(() => image(7 as never), rejected(/takes a path, a URL, bytes or a Blob/));
});

test("limits the size of files and answers", async () => {
  const large = join(folder, "large.png");
  await writeFile(large, "");
  await truncate(large, maxImageBytes + 1);
  await assert.rejects(image(large).bytes(), rejected(/larger than 64 MiB/));
  await assert.rejects(image(`${address}/huge`, near).bytes(), rejected(/larger than 64 MiB/));
});

test("a signal ends the reading", async () => {
  await assert.rejects(image(file).bytes(AbortSignal.abort()), AbortError);
  const controller = new AbortController();
  const reading = image(`${address}/never`, near).bytes(controller.signal);
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(reading, AbortError);
});
