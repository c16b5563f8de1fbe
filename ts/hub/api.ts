import { answerError, type Subject } from "./failures.ts";
import { ask, type Session } from "./http.ts";
import { isCommit, isSafeName, maxName } from "./ids.ts";
import { isGguf } from "./names.ts";
import { retrying } from "./retry.ts";

/** A file of a repository; its etag is the hash of its content and names it in the cache. */
export interface HubFile {
  name: string;
  size: number;
  /** SHA-256 of the content for large files, the hash that git has of it for the others. */
  etag: string;
}

/** A model's files at one commit; `size` and `etag` may be missing. */
export interface Repository {
  commit: string;
  files: ReadonlyMap<string, Partial<HubFile>>;
}

const maxJsonBytes = 32 * 1024 * 1024;
const maxFiles = 100_000;

/** Most bytes of a file that is not weights; the engine reads no more of one either. */
const maxSmallBytes = 64 * 1024 * 1024;

/** Which files a model has, and the commit that its revision means now. */
export async function readRepository(session: Session, subject: Subject, attempts: number): Promise<Repository> {
  const { endpoint, id, revision } = subject;
  const url = `${endpoint}/api/models/${id}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const text = await retrying(session, attempts, async () =>
    (await ask(session, { url, subject, accept: [200] })).text(maxJsonBytes, subject),
  );
  const bad = (why: string) => answerError("hub-response", subject, url, `the server's list of files ${why}`);
  const info = parse(text) as { sha?: unknown; siblings?: unknown } | undefined;
  if (typeof info?.sha !== "string" || !isCommit(info.sha) || !Array.isArray(info.siblings))
    throw bad("is not what a hub sends");
  if (info.siblings.length > maxFiles) throw bad(`has more than ${maxFiles} files`);
  const files = new Map<string, Partial<HubFile>>();
  for (const sibling of info.siblings as unknown[]) {
    const file = readSibling(sibling);
    if (!file) throw bad("has an entry without a name");
    if (!isSafeName(file.name)) throw bad(`has the file \`${file.name}\`, whose name leads elsewhere`);
    files.set(file.name, file);
  }
  return { commit: info.sha, files };
}

function readSibling(value: unknown): (Partial<HubFile> & { name: string }) | undefined {
  const { rfilename, size, blobId, lfs } = (value ?? {}) as Record<string, unknown>;
  if (typeof rfilename !== "string") return undefined;
  const large = typeof lfs === "object" && lfs !== null ? (lfs as { sha256?: unknown; size?: unknown }) : undefined;
  const etag = large ? large.sha256 : blobId;
  const bytes = large?.size ?? size;
  return {
    name: rfilename,
    ...(isEtag(etag) && { etag }),
    ...(Number.isSafeInteger(bytes) && (bytes as number) >= 0 && { size: bytes as number }),
  };
}

/** The address of a file's content. */
export function fileUrl({ endpoint, id }: Subject, commit: string, name: string): string {
  return `${endpoint}/${id}/resolve/${commit}/${name.split("/").map(encodeURIComponent).join("/")}`;
}

/** Size and etag of a file, asked from the file itself where the list has not said them. */
export async function completeFile(session: Session, subject: Subject, commit: string, name: string): Promise<HubFile> {
  const about = { ...subject, file: name };
  const url = fileUrl(subject, commit, name);
  return retrying(session, 5, async () => {
    const answer = await ask(session, { url, subject: about, method: "HEAD", accept: [200] });
    await answer.discard();
    const etag = cleanEtag(answer.described.get("x-linked-etag") ?? answer.headers.get("etag"));
    const size = Number(answer.described.get("x-linked-size") ?? answer.headers.get("content-length") ?? Number.NaN);
    if (isEtag(etag) && Number.isSafeInteger(size) && size >= 0) return { name, size, etag };
    throw answerError("hub-response", about, url, "the server says neither its size nor its hash");
  });
}

/** Refuses a file before its first byte: one that the engine would not read, or whose name no disk takes. */
export function checkFile(file: HubFile, subject: Subject, commit: string): HubFile {
  const { name, size } = file;
  const bad = (why: string) =>
    answerError("hub-response", { ...subject, file: name }, fileUrl(subject, commit, name), why);
  if (!name.endsWith(".safetensors") && !isGguf(name) && size > maxSmallBytes)
    throw bad(`it has ${size} bytes, and at most ${maxSmallBytes} of such a file are downloaded`);
  if (name.split("/").some((segment) => Buffer.byteLength(segment) > maxName))
    throw bad(`its name is longer than a disk allows (${maxName} bytes)`);
  return file;
}

/** An etag without its quotes and its mark of weakness. */
export function cleanEtag(value: string | null): string | undefined {
  return value?.replace(/^W\//, "").replace(/^"|"$/g, "");
}

/** SHA-1 or SHA-256 in hexadecimal digits; everything else could not be checked, nor be a file's name. */
export function isEtag(value: unknown): value is string {
  return typeof value === "string" && /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(value);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
