// A small Hugging Face hub for tests: its API and files on one port, the storage that it redirects to on another.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const tiny: string = fileURLToPath(new URL("../../models/tiny-llava", import.meta.url));
export const commit: string = "0123456789abcdef0123456789abcdef01234567";

/** The name of a file's content in the cache. */
export function etagOf(name: string, content: Uint8Array): string {
  if (isLarge(name)) return createHash("sha256").update(content).digest("hex");
  return createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
}

function isLarge(name: string): boolean {
  return name.endsWith(".safetensors");
}

/** The files of the embedded model, with those that are never asked for. */
export function tinyFiles(): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (const entry of readdirSync(tiny, { withFileTypes: true }))
    if (entry.isFile()) files.set(entry.name, readFileSync(join(tiny, entry.name)));
  files.set("pytorch_model.bin", new Uint8Array(100));
  return files;
}

/** A model that no engine could load, in shards, small and quick. */
export function smallFiles(shardBytes: number = 200_000): Map<string, Uint8Array> {
  const text = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
  const shard = (seed: number): Uint8Array =>
    Uint8Array.from({ length: shardBytes }, (_, at) => (at * 31 + seed) % 251);
  return new Map([
    ["config.json", text({ model_type: "llava" })],
    ["tokenizer.json", text({})],
    ["README.md", text("read me")],
    ["model.safetensors.index.json", text({ weight_map: { a: "model-1.safetensors", b: "model-2.safetensors" } })],
    ["model-1.safetensors", shard(1)],
    ["model-2.safetensors", shard(2)],
  ]);
}

interface Seen {
  method: string;
  path: string;
  foreign: boolean;
  authorization: string | undefined;
  range: string | undefined;
  /** Bytes of content that were sent. */
  sent: number;
}

/** May answer instead of the server; true if it has answered. */
type Hook = (request: IncomingMessage, response: ServerResponse, seen: Seen) => boolean;

export class HubServer {
  files: Map<string, Uint8Array>;
  id: string = "org/tiny";
  commit: string = commit;
  seen: Seen[] = [];
  /** Without them, the list names the files only. */
  blobs = true;
  /** Called for every request first. */
  hook: Hook = () => false;
  /** Content that is sent in place of the listed one. */
  wrong: Map<string, Uint8Array> = new Map();
  /** Cuts the connection after so many bytes of a file, as often as said. */
  cut: { name: string; after: number; times: number } | undefined;
  noRanges = false;
  endpoint = "";
  storage = "";
  readonly #servers: Server[] = [];

  constructor(files: Map<string, Uint8Array>) {
    this.files = files;
  }

  async start(): Promise<this> {
    this.endpoint = await this.#listen(false);
    this.storage = await this.#listen(true);
    return this;
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** Forgets what was asked, and every fault. */
  reset(): void {
    this.seen = [];
    this.hook = () => false;
    this.wrong.clear();
    this.cut = undefined;
    this.noRanges = false;
    this.blobs = true;
    this.commit = commit;
  }

  /** The paths that were asked, without the API's. */
  get fetched(): string[] {
    return this.seen.filter(({ path }) => !path.startsWith("/api/")).map(({ path }) => path);
  }

  async #listen(foreign: boolean): Promise<string> {
    const server = createServer((request, response) => {
      const seen: Seen = {
        method: request.method ?? "",
        path: (request.url ?? "").split("?")[0] ?? "",
        foreign,
        authorization: request.headers.authorization,
        range: request.headers.range,
        sent: 0,
      };
      this.seen.push(seen);
      if (this.hook(request, response, seen)) return;
      if (foreign) this.#store(request, response, seen);
      else if (seen.path.startsWith("/api/models/")) this.#list(request, response, seen);
      else this.#resolve(request, response, seen);
    });
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  #list(_: IncomingMessage, response: ServerResponse, { path }: Seen): unknown {
    const [, id, revision] = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/(.+)$/.exec(path) ?? [];
    if (id !== this.id) return fail(response, 404, "RepoNotFound");
    if (!["main", "refs%2Fpr%2F1", this.commit].includes(revision ?? ""))
      return fail(response, 404, "RevisionNotFound");
    const siblings = [...this.files].map(([name, content]) => {
      if (!this.blobs) return { rfilename: name };
      const entry = { rfilename: name, size: content.length, blobId: "f".repeat(40) };
      const etag = etagOf(name, content);
      return isLarge(name) ? { ...entry, lfs: { sha256: etag, size: content.length } } : { ...entry, blobId: etag };
    });
    response.setHeader("content-type", "application/json");
    return response.end(JSON.stringify({ id, sha: this.commit, siblings }));
  }

  #resolve(request: IncomingMessage, response: ServerResponse, seen: Seen): unknown {
    const [, id, asked, name = ""] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(seen.path) ?? [];
    const content = this.files.get(name);
    if (id !== this.id || asked !== this.commit || !content) return fail(response, 404, "EntryNotFound");
    response.setHeader("x-repo-commit", this.commit);
    if (!isLarge(name)) {
      response.setHeader("etag", `"${etagOf(name, content)}"`);
      return this.#send(request, response, seen, name);
    }
    response.writeHead(302, {
      location: `${this.storage}/store/${name}?signature=secret`,
      "x-linked-etag": `"${etagOf(name, content)}"`,
      "x-linked-size": String(content.length),
    });
    return response.end();
  }

  #store(request: IncomingMessage, response: ServerResponse, seen: Seen): void {
    response.setHeader("etag", '"an etag of the storage"');
    this.#send(request, response, seen, seen.path.replace("/store/", ""));
  }

  #send(request: IncomingMessage, response: ServerResponse, seen: Seen, name: string): unknown {
    const content = this.wrong.get(name) ?? this.files.get(name) ?? new Uint8Array();
    const from = this.noRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const own = String(response.getHeader("etag"));
    const partly = from > 0 && [undefined, own].includes(request.headers["if-range"] as string | undefined);
    if (from >= content.length && content.length > 0) return fail(response, 416, "");
    const body = partly ? content.subarray(from) : content;
    response.setHeader("content-length", body.length);
    if (partly) response.setHeader("content-range", `bytes ${from}-${content.length - 1}/${content.length}`);
    response.writeHead(partly ? 206 : 200);
    if (request.method === "HEAD") return response.end();
    if (this.cut && this.cut.name === name && this.cut.times > 0) {
      this.cut.times -= 1;
      const piece = body.subarray(0, this.cut.after);
      seen.sent = piece.length;
      // Long enough for the client to have read the piece.
      response.write(piece, () => setTimeout(() => response.destroy(), 30));
      return undefined;
    }
    seen.sent = body.length;
    return response.end(body);
  }
}

export function fail(response: ServerResponse, status: number, code: string, message = ""): void {
  response.writeHead(status, { "x-error-code": code, "x-error-message": message });
  response.end("{}");
}
