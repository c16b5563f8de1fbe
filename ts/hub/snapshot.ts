import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { abortError, HubError } from "../errors.ts";
import { readRegularText } from "../regular_file.ts";
import { Stop } from "../stop.ts";
import { checkFile, completeFile, type HubFile, type Repository, readRepository } from "./api.ts";
import { ModelCache } from "./disk_cache.ts";
import { fetchFile, type Transfer } from "./download.ts";
import { DownloadProgress } from "./download_progress.ts";
import { answerError, diskError, type Subject } from "./failures.ts";
import { candidates, chosenGguf } from "./gguf.ts";
import { isPattern } from "./glob.ts";
import type { Session } from "./http.ts";
import { type HubId, isCommit } from "./ids.ts";
import { isTower, modelAndTower, partsOf } from "./names.ts";
import type { HubOptions } from "./options.ts";
import { inParallel } from "./parallel.ts";
import * as plan from "./plan.ts";
import { index, maxIndexBytes, optional, required, shardNames, single, tokenizer, vocabulary } from "./plan.ts";
import { readSettings, type Settings } from "./settings.ts";
import { machine, type System } from "./system.ts";
import { type Asked, chosenTower, isBest, noTower } from "./towers.ts";

/** Most names of a snapshot that are looked at for a GGUF file. */
const maxNames = 10_000;

const unwritten: ReadonlySet<string> = new Set([
  ...["EROFS", "EACCES", "EPERM"],
  // A folder in the place of the note, or a file in the place of one of its folders.
  ...["EISDIR", "ENOTEMPTY", "EEXIST", "ENOTDIR"],
]);

/** Where a model is: its folder or its GGUF file, and the vision tower of such a file, false for none. */
export interface ModelFiles {
  source: string;
  vision?: string | false;
}

/**
 * The folder of a Hub model with every file that the engine reads, or its GGUF file and its vision tower; with `adapter` the folder of a
 * LoRA adapter. Downloads files that are not cached.
 */
export async function hubModel(
  hub: HubId,
  options: HubOptions & { vision?: string | false },
  system: System = machine,
  adapter: boolean = false,
): Promise<ModelFiles> {
  const settings = await readSettings(options);
  // Ends what is left of a load when one of its files fails.
  const stop = new Stop(options.signal);
  const session: Session = { endpoint: settings.endpoint, token: settings.token, signal: stop.signal, system };
  const end = (): void => stop.end(abortError(undefined));
  const asked = { file: options.file, vision: options.vision, adapter };
  const load = new HubLoad(hub, asked, settings, session, new DownloadProgress(options.onProgress), end);
  try {
    return await load.run();
  } catch (error) {
    if (options.signal?.aborted) throw abortError(options.signal);
    throw diskError(error, settings.cacheDir, load.remaining) ?? error;
  } finally {
    stop.end(abortError(undefined));
    stop.done();
  }
}

/** How much of a commit is cached: every file that is read, all but optional ones, or less. */
interface Found {
  state: "whole" | "usable" | "partly";
  missing: string[];
  /** The GGUF file that is meant, where one is; of several of one model the first. */
  gguf?: string;
  /** Its vision tower. */
  tower?: string | undefined;
}

/** The GGUF file that was asked for, or a pattern of it, and its vision tower. */
interface AskedFiles {
  file: string | undefined;
  vision: Asked;
  /** An adapter instead. */
  adapter: boolean;
}

class HubLoad {
  readonly #hub: HubId;
  readonly #asked: AskedFiles;
  readonly #settings: Settings;
  readonly #session: Session;
  readonly #cache: ModelCache;
  readonly #subject: Subject;
  readonly #progress: DownloadProgress;
  readonly #stop: () => void;

  constructor(
    hub: HubId,
    asked: AskedFiles,
    settings: Settings,
    session: Session,
    progress: DownloadProgress,
    stop: () => void,
  ) {
    this.#hub = hub;
    this.#asked = asked;
    this.#settings = settings;
    this.#session = session;
    this.#progress = progress;
    this.#stop = stop;
    this.#cache = new ModelCache(settings.cacheDir, hub.id, settings.links);
    this.#subject = { ...hub, endpoint: settings.endpoint, hasToken: settings.token !== undefined };
  }

  /** Bytes that have yet to come; undefined before that is known. */
  get remaining(): number | undefined {
    return this.#progress.remaining;
  }

  async run(): Promise<ModelFiles> {
    const { revision } = this.#hub;
    const known = await this.#cache.commitOf(revision);
    const found: Found = known ? await this.#look(known) : { state: "partly", missing: [] };
    if (known && found.state === "whole" && isCommit(revision)) return this.#place(known, found);
    if (this.#settings.offline) {
      if (known && found.state !== "partly") return this.#place(known, found);
      throw this.#offline(found.missing);
    }
    const usable = known !== undefined && found.state !== "partly" ? known : undefined;
    const repository = await this.#ask(usable);
    if (!repository) return this.#place(usable ?? revision, found);
    const { file, vision, adapter } = this.#asked;
    const held = new Set(repository.files.keys());
    const names = adapter
      ? plan.neededOfAdapter(held, this.#subject)
      : plan.neededFiles(held, this.#subject, file, vision);
    await this.#download(repository, names);
    const [gguf, tower] = modelAndTower(names);
    await this.#note(repository, gguf === undefined);
    return this.#place(repository.commit, { ...(gguf !== undefined && { gguf }), tower });
  }

  /** The paths that the engine loads: the folder of a commit, or files of it. */
  #place(commit: string, { gguf, tower }: Pick<Found, "gguf" | "tower">): ModelFiles {
    const path = (name: string | undefined) => join(this.#cache.snapshot(commit), ...(name?.split("/") ?? []));
    if (gguf === undefined) return { source: path(undefined) };
    return { source: path(gguf), vision: tower === undefined ? false : path(tower) };
  }

  /** Asks the hub; where it cannot be reached, a cache that has the model will do, as in huggingface_hub. */
  async #ask(usable: string | undefined): Promise<Repository | undefined> {
    try {
      return await readRepository(this.#session, this.#subject, usable === undefined ? 5 : 2);
    } catch (error) {
      const passing = error instanceof HubError && ["hub-network", "hub-rate-limited"].includes(error.code);
      if (passing && usable !== undefined) return undefined;
      throw error;
    }
  }

  /** A GGUF file in the cache: the one that is asked for, or without a pattern the only one of a commit without other weights. */
  async #lookForGguf(commit: string): Promise<Found | undefined> {
    const cache = this.#cache;
    const { file } = this.#asked;
    if (file === undefined && ((await cache.has(commit, single)) || (await cache.has(commit, index)))) return undefined;
    const names = await cache.names(commit, maxNames);
    const found = candidates(names, file);
    const [gguf, another] = found;
    if (gguf !== undefined && another === undefined) {
      const missing = partsOf(gguf).filter((name) => !names.includes(name));
      if (missing.length > 0) return { state: "partly", missing };
      // Another file of the repository may match a pattern too.
      const sure = file === gguf && !isPattern(file);
      return this.#withTower(commit, names, gguf, sure);
    }
    if (gguf !== undefined && this.#settings.offline) chosenGguf(new Set(found), this.#subject, file);
    return file === undefined ? undefined : { state: "partly", missing: [file] };
  }

  /** A GGUF file that is there and its vision tower; `sure` if the file is the one that is meant whatever else the repository has. */
  async #withTower(commit: string, names: string[], gguf: string, sure: boolean): Promise<Found> {
    const { vision } = this.#asked;
    const choose = () => chosenTower(names, this.#subject, gguf, vision);
    const tower = this.#settings.offline && vision === undefined ? choose() : tryTo(choose);
    if (typeof vision === "string" && tower === undefined) return { state: "partly", missing: [vision] };
    const best = tower === undefined ? await this.#cache.lacks(commit, noTower) : tower === vision || isBest(tower);
    const whole = sure && (vision === false || isTower(gguf) || best);
    return { state: whole ? "whole" : "usable", missing: [], gguf, tower };
  }

  async #look(commit: string): Promise<Found> {
    const cache = this.#cache;
    const missing: string[] = [];
    if (this.#asked.adapter) {
      for (const name of plan.adapterFiles) if (!(await cache.has(commit, name))) missing.push(name);
      return { state: missing.length === 0 ? "whole" : "partly", missing };
    }
    const gguf = await this.#lookForGguf(commit);
    if (gguf) return gguf;
    for (const name of required) if (!(await cache.has(commit, name))) missing.push(name);
    const slow = !(await cache.has(commit, tokenizer));
    const words = await Promise.all(vocabulary.map((name) => cache.has(commit, name)));
    if (slow && words.includes(false)) missing.push(tokenizer);
    const sharded = !(await cache.has(commit, single)) && (await cache.has(commit, index));
    if (sharded) {
      const path = join(cache.snapshot(commit), index);
      // A damaged index is one that has to come again.
      const text = await readRegularText(path, maxIndexBytes).catch(() => "");
      const shards = tryTo(() => shardNames(text, this.#subject, path)) ?? [];
      if (shards.length === 0) missing.push(index);
      for (const name of shards) if (!(await cache.has(commit, name))) missing.push(name);
    } else if (!(await cache.has(commit, single))) missing.push(single);
    if (missing.length > 0) return { state: "partly", missing };
    // A single file that has come since would go before the index, and a tokenizer.json before a vocabulary.
    const unsure = [...optional, ...(sharded ? [single] : []), ...(slow ? [tokenizer] : [])];
    for (const name of unsure)
      if (!(await cache.has(commit, name)) && !(await cache.lacks(commit, name))) return { state: "usable", missing };
    return { state: "whole", missing };
  }

  #offline(missing: string[]): HubError {
    const { id, revision } = this.#hub;
    const { cacheDir } = this.#settings;
    const what = missing.length > 0 ? `misses ${missing.join(", ")} of it` : "does not have it";
    const message = `cannot load ${id} at ${revision}: offline, and the cache ${cacheDir} ${what}; load it once without \`offline\` (HF_HUB_OFFLINE)`;
    return new HubError("hub-offline", message, { id, revision, cacheDir, missing });
  }

  async #download({ commit, files }: Repository, names: readonly string[]): Promise<void> {
    const transfer: Transfer = {
      session: this.#session,
      subject: this.#subject,
      cache: this.#cache,
      commit,
      onBytes: (name, bytes) => this.#progress.set(name, bytes),
    };
    const complete = async (name: string): Promise<HubFile> => {
      const { size, etag } = files.get(name) ?? {};
      const whole =
        size !== undefined && etag !== undefined
          ? { name, size, etag }
          : await completeFile(this.#session, this.#subject, commit, name);
      return checkFile(whole, this.#subject, commit);
    };
    const wanted = await inParallel(names, complete, this.#stop);
    const listed = wanted.find(({ name }) => name === index);
    if (listed) wanted.push(...(await inParallel(await this.#shards(transfer, listed, files), complete, this.#stop)));
    const missing: HubFile[] = [];
    for (const file of wanted) if (!(await this.#cache.has(commit, file.name, file.size))) missing.push(file);
    if (missing.length === 0) return;
    await this.#expect(missing);
    await inParallel(missing, (file) => fetchFile(transfer, file), this.#stop);
    this.#progress.end();
  }

  /** Brings the index and reads from it which files have the weights. */
  async #shards(transfer: Transfer, file: HubFile, files: Repository["files"]): Promise<string[]> {
    const path = join(this.#cache.snapshot(transfer.commit), index);
    const bad = (why: string) => answerError("hub-response", { ...this.#subject, file: index }, path, why);
    await fetchFile({ ...transfer, onBytes: () => {} }, file);
    const names = shardNames(await readRegularText(path, maxIndexBytes), this.#subject, path);
    const absent = names.find((name) => !files.has(name));
    if (absent !== undefined) throw bad(`it names the file ${absent}, which the model does not have`);
    return names;
  }

  /** Says what will come, and finds out before the first byte whether there is room. */
  async #expect(missing: readonly HubFile[]): Promise<void> {
    const { cacheDir } = this.#settings;
    for (const { name, size, etag } of missing)
      this.#progress.expect(name, size, await this.#cache.bytesOf(etag, size));
    await mkdir(cacheDir, { recursive: true });
    const free = await this.#session.system.free(cacheDir);
    const needed = this.#progress.remaining ?? 0;
    if (free === undefined || free >= needed) return;
    const full = `the disk of ${cacheDir} is full: ${needed} bytes are needed, ${free} are free`;
    const cure = "free some, or set HF_HUB_CACHE or `cacheDir` to another disk";
    throw new HubError("hub-disk", `${full}; ${cure}`, { cacheDir, needed, free });
  }

  /** Writes down what the revision means, and which files it does not have. */
  async #note({ commit, files }: Repository, folder: boolean): Promise<void> {
    try {
      const towerless = ![...files.keys()].some(isTower);
      for (const name of folder ? [...optional, single, index, tokenizer] : towerless ? [noTower] : [])
        if (!files.has(name) && !(await this.#cache.lacks(commit, name))) await this.#cache.setLacking(commit, name);
      await this.#cache.setCommit(this.#hub.revision, commit);
    } catch (error) {
      // A cache that may only be read, or has something else where the note would go, does as well: it has everything.
      if (!unwritten.has(String((error as NodeJS.ErrnoException).code))) throw error;
    }
  }
}

function tryTo<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}
