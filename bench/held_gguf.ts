// Memory of a model from a GGUF file: `npm run bench:held -- --gguf` runs `held_gguf.ts FILE TOKENS` in a process of its own for each file,
// which loads it, holds a chat, looks at the memory of the process and prints JSON. Linux only.
import { spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { source } from "../tests/real/goldens.ts";
import { about, full, load } from "../ts/index.ts";
import { heading, keep, origin } from "./machine.ts";
import { table } from "./stats.ts";

/** Resident bytes of a process: pages of the GGUF file, of programs and libraries, and all else. */
interface Split {
  file: number;
  code: number;
  heap: number;
}

interface GgufRun {
  /** Milliseconds to load. */
  load: number;
  promptTokens: number;
  /** Bytes of the chat's cache. */
  cache: number;
  /** The library loaded; after a small model was loaded, used and ended; with the file loaded; with a chat held. */
  bare: Split;
  warm: Split;
  loaded: Split;
  held: Split;
}

function split(): Split {
  const found: Split = { file: 0, code: 0, heap: 0 };
  let kind: keyof Split = "heap";
  for (const line of readFileSync("/proc/self/smaps", "utf8").split("\n")) {
    const path = /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$/.exec(line)?.[1];
    if (path !== undefined) kind = path.endsWith(".gguf") ? "file" : path.startsWith("/") ? "code" : "heap";
    found[kind] += Number(/^Rss:\s+(\d+) kB/.exec(line)?.[1] ?? 0) * 1024;
  }
  return found;
}

async function settled(): Promise<Split> {
  for (let round = 0; round < 3; round++) {
    (globalThis as { Bun?: { gc(force: boolean): void } }).Bun?.gc(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return split();
}

async function child(path: string, tokens: number): Promise<GgufRun> {
  await about();
  const bare = await settled();
  const small = await load();
  await small.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 4 });
  await small.dispose();
  const warm = await settled();
  const started = performance.now();
  const model = await load(path);
  const took = performance.now() - started;
  const loaded = await settled();
  const text = readFileSync(new URL("../tests/real/text.txt", import.meta.url), "utf8");
  const ids = await model.tokenize(text, { addSpecialTokens: false });
  const prompt = await model.detokenize(ids.slice(0, tokens));
  const chat = model.chat({ cache: full() });
  const { usage, memory } = await chat.send(prompt, { maxTokens: 16, ignoreEos: true });
  const held = await settled();
  await chat.dispose();
  await model.dispose();
  return { load: took, promptTokens: usage.promptTokens, cache: memory.resident, bare, warm, loaded, held };
}

/** The table of both files, and its page. */
export async function heldGguf(bun: string, quick: boolean): Promise<void> {
  const files: [string, string][] = [
    ["SmolLM2-135M, Q4_1", source("gguf")],
    ["Gemma 3 270M, Q4_K_M", fileURLToPath(new URL("../.cache/real/gemma/gemma-3-270m-q4_k_m.gguf", import.meta.url))],
  ];
  const measured = files.map(([name, path]) => {
    const args = [fileURLToPath(import.meta.url), path, quick ? "64" : "512"];
    const { stdout, stderr, status } = spawnSync(bun, args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`${name}: ${stderr}`);
    return { name, bytes: statSync(path).size, ...(JSON.parse(stdout) as GgufRun) };
  });
  const from = await origin();
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const sum = ({ file, code, heap }: Split): number => file + code + heap;
  const rows = measured.flatMap(({ name, bytes, promptTokens, cache, bare, warm, loaded, held }) =>
    [
      { when: "loaded", now: loaded, kept: 0 },
      { when: `${promptTokens} tokens held`, now: held, kept: cache },
    ].map(({ when, now, kept }) => {
      const [more, all, due] = [sum(now) - sum(warm), sum(now) - sum(bare), bytes + kept];
      const over = (held: number): string => `${((100 * (held - due)) / bytes).toFixed(1)} %`;
      return [
        ...[name, when, mib(bytes), mib(kept), mib(now.file), mib(now.heap - warm.heap), mib(now.code - warm.code)],
        ...[mib(more), over(more), mib(all), over(all)],
      ];
    }),
  );
  const page = `${heading("A model from a GGUF file", from)}

MiB of resident memory that a process on Bun holds: the pages of the mapped file, heap and code beside what the process held after it had loaded, used and ended the embedded model, and their
sum; *over*: how much that is over the file and the cache, in parts of the file. The last two columns count from a process that has only loaded the library, so pages of its code and of the runtime's that
the first use brings into memory are in them; every model that follows shares these. The goal is at most 10 % over.

${table([["file", "", "its size", "cache", "mapped", "heap", "code", "sum", "over", "from the bare library", "over"], ...rows])}

Loading took ${measured.map(({ load: took }) => `${Math.round(took)} ms`).join(" and ")}, with the file in the system's cache.
`;
  await keep("held-gguf", quick, { origin: from, measured } as { origin: typeof from }, page);
}

if (import.meta.main) {
  const [path = "", tokens = "512"] = process.argv.slice(2);
  console.log(JSON.stringify(await child(path, Number(tokens))));
}
