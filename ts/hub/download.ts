import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { abortError } from "../errors.ts";
import { cleanEtag, fileUrl, type HubFile, isEtag } from "./api.ts";
import type { ModelCache } from "./disk_cache.ts";
import { answerError, networkError, type Subject, Transient } from "./failures.ts";
import { type Answer, ask, type Session } from "./http.ts";
import { withLock } from "./lock.ts";
import { PartialFile } from "./partial.ts";
import { retrying } from "./retry.ts";

const attempts = 5;

/** Where the files of one load come from and go to. */
export interface Transfer {
  session: Session;
  subject: Subject;
  cache: ModelCache;
  commit: string;
  /** Called with how many bytes of a file are there. */
  onBytes(name: string, bytes: number): void;
}

/** Brings a file into the cache and its name into the commit's folder. */
export async function fetchFile(transfer: Transfer, file: HubFile): Promise<void> {
  const { session, cache, commit, onBytes } = transfer;
  if (await cache.has(commit, file.name, file.size)) return;
  if (!(await cache.hasBlob(file.etag, file.size))) {
    const waiting = async (): Promise<void> => onBytes(file.name, await cache.bytesOf(file.etag, file.size));
    await withLock(cache.lock(file.etag), { ...session, waiting }, async () => {
      // Who held the lock before may have brought it.
      if (!(await cache.hasBlob(file.etag, file.size))) await download(transfer, file);
    });
  }
  onBytes(file.name, file.size);
  await cache.link(commit, file.name, file.etag);
}

async function download(transfer: Transfer, file: HubFile): Promise<void> {
  const { session, cache, commit } = transfer;
  const subject: Subject = { ...transfer.subject, file: file.name };
  const url = fileUrl(subject, commit, file.name);
  const path = cache.partial(file.etag);
  await mkdir(dirname(path), { recursive: true });
  const partial = await PartialFile.open(path, file, session.system, session.signal);
  const gain = new Gain(file.size, partial.length);
  let again = true;
  try {
    await retrying(session, attempts, async () => {
      const from = partial.whole ? file.size : await receive(transfer, file, subject, url, partial, gain);
      const outcome = await partial.finish(cache.blob(file.etag));
      if (outcome === "done") return;
      if (outcome === "lost") {
        // Somebody who took this load for dead has gone on with the file, or still does.
        if (await cache.hasBlob(file.etag, file.size)) return;
        await partial.restart();
        throw new Transient(answerError("hub-integrity", subject, url, "another program has changed it on its way"));
      }
      await partial.remove();
      const why = "what came does not have the promised hash; it was removed";
      const error = answerError("hub-integrity", subject, url, why);
      // A file of several pieces may be wrong by an earlier one: it gets one more chance, as a whole.
      if (from === 0 || !again) throw error;
      again = false;
      await partial.restart();
      throw new Transient(error);
    });
  } finally {
    await partial.close();
  }
}

/** Asks for what is missing and writes it; resolves with where the answer began. */
async function receive(
  { session, commit, onBytes }: Transfer,
  file: HubFile,
  subject: Subject,
  url: string,
  partial: PartialFile,
  gain: Gain,
): Promise<number> {
  const range = partial.length > 0;
  const answer = await ask(session, {
    url,
    subject,
    accept: range ? [200, 206, 416] : [200],
    headers: range ? { range: `bytes=${partial.length}-` } : {},
    // Storage servers have etags of their own, which do not match.
    hubHeaders: range ? { "if-range": `"${file.etag}"` } : {},
  });
  let from: number;
  try {
    from = await begin(answer, file, subject, commit, partial);
  } catch (error) {
    await answer.discard();
    throw error;
  }
  try {
    for await (const chunk of answer.chunks(subject)) {
      if (session.signal.aborted) throw abortError(session.signal);
      if (partial.length + chunk.length > file.size) {
        await partial.remove();
        throw answerError("hub-integrity", subject, answer.url, `more than the promised ${file.size} bytes came`);
      }
      await partial.write(chunk);
      onBytes(file.name, partial.length);
    }
  } catch (error) {
    if (error instanceof Transient) throw new Transient(error.error, { progressed: gain.take(partial.length, from) });
    throw error;
  }
  if (partial.whole) return from;
  const why = `the connection ended after ${partial.length} of ${file.size} bytes`;
  throw new Transient(networkError(answer.url, subject, why), { progressed: gain.take(partial.length, from) });
}

/**
 * Bytes that attempts have added beyond the most there ever was. A server that starts over and cuts at the same place adds
 * nothing; one that brings a few bytes each time would take for ever, so only a gain that counts starts the count of attempts anew.
 */
export class Gain {
  readonly #size: number;
  #best: number;

  constructor(size: number, there: number) {
    this.#size = size;
    this.#best = there;
  }

  /** Whether a length is a gain: 64 KiB or a hundredth of the file; a tenth, where what was there has come once more. */
  take(length: number, from: number): boolean {
    const again = from === 0 && this.#best > 0;
    const least = again ? this.#size / 10 : Math.min(65_536, this.#size / 100);
    if (length - this.#best < Math.max(1, least)) return false;
    this.#best = length;
    return true;
  }
}

/** Checks what the answer says about itself, and starts over where it does not go on from the bytes at hand. */
async function begin(
  answer: Answer,
  { size, etag }: HubFile,
  subject: Subject,
  commit: string,
  partial: PartialFile,
): Promise<number> {
  const bad = (why: string) => answerError("hub-integrity", subject, answer.url, why);
  const own = cleanEtag(answer.described.get("x-linked-etag"));
  if (isEtag(own) && own !== etag) throw bad(`the server says hash ${own}, its list of files says ${etag}`);
  const theirs = answer.described.get("x-repo-commit");
  if (theirs !== null && theirs !== commit) throw bad(`the server sends commit ${theirs} instead of ${commit}`);
  if (answer.status === 206) {
    const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(answer.headers.get("content-range") ?? "") ?? [];
    if (total !== undefined && total !== "*" && Number(total) !== size) throw await wrongSize(Number(total));
    if (Number(start) === partial.length) return partial.length;
  }
  if (answer.status !== 200) {
    await partial.restart();
    throw new Transient(bad("the server does not go on where the file ends"));
  }
  const length = answer.headers.get("content-length");
  if (length !== null && !answer.headers.has("content-encoding") && Number(length) !== size)
    throw await wrongSize(Number(length));
  if (partial.length > 0) await partial.restart();
  return 0;

  async function wrongSize(told: number) {
    await partial.remove();
    return bad(`the server has ${told} bytes, its list of files says ${size}`);
  }
}
