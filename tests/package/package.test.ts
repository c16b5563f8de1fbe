import assert from "node:assert/strict";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { inTurn } from "../kit/turns.ts";
import { root } from "../runtimes/spawn.ts";
import { finish, folder, manifest, npm, type Outcome, run, runtime, step, tarballs, which } from "./workplace.ts";

const elsewhere = process.platform !== "linux" || process.arch !== "x64";
// They start all three runtimes themselves.
const slow = { timeout: 300_000, skip: elsewhere || (inTurn(2) ? false : "runs on another runtime") };
const readme = readFileSync(join(root, "README.md"), "utf8");
const page = readFileSync(join(root, "docs", "install.md"), "utf8");
const described = ["blue triangle", "gray ring", "green star", "purple triangle"];

after(finish);

const pack = () =>
  step("pack", () => run(runtime("node"), [join(root, "scripts", "pack.mjs"), "--release-build"], root));

/** A folder with the packages as npm installs them, without a registry, and with the programs of these tests. */
const installed = () =>
  step("npm install", async () => {
    ok(await pack());
    const cwd = folder("npm");
    writeFileSync(join(cwd, "package.json"), '{ "type": "module" }\n');
    const outcome = await run(
      npm,
      ["install", "--offline", "--cache", folder("npm cache"), "--no-audit", "--no-fund", ...tarballs],
      cwd,
    );
    programs(cwd);
    return outcome;
  });

const [, tenLines = "", rest = ""] = readme.match(/^## Ten lines\n+```ts\n(.*?)^```$(.*?)^## /ms) ?? [];
/** The command lines below them: one that installs, and one that runs them on Node, with the others behind it. */
const [, commands = ""] = rest.match(/^```sh\n(.*?)^```$/ms) ?? [];

function programs(cwd: string): void {
  copyFileSync(join(root, "data", "scenes", "scene-000.png"), join(cwd, "scene.png"));
  writeFileSync(join(cwd, "ten.ts"), tenLines);
  writeFileSync(join(cwd, "types.ts"), types);
  writeFileSync(join(cwd, "bare.ts"), bare);
  writeFileSync(
    join(cwd, "old.mjs"),
    `for (const name of ["prefixkv", "prefixkv/eval", "prefixkv/openai", "prefixkv/report"])
  console.log(await import(name).then(() => \`\${name} loads\`, ({ message }) => message));
`,
  );
  writeFileSync(join(cwd, "jsr.ts"), tenLines.replace('"prefixkv"', '"./jsr/index.ts"'));
  for (const [module, resolution] of [
    ["nodenext", "nodenext"],
    ["esnext", "bundler"],
  ]) {
    const compilerOptions = {
      module,
      moduleResolution: resolution,
      target: "es2023",
      lib: ["es2023", "dom"],
      strict: true,
      skipLibCheck: false,
      // Without this the ten lines would have no `process`.
      types: ["node"],
      typeRoots: [join(root, "node_modules", "@types")],
      outDir: resolution,
    };
    writeFileSync(join(cwd, `${resolution}.json`), JSON.stringify({ compilerOptions, files: ["types.ts", "ten.ts"] }));
  }
}

/** An empty project's settings: no types of Node, no libraries but those of the compiler. */
const projects = ["node16", "nodenext", "bundler"].flatMap((moduleResolution) =>
  [true, false].map((skipLibCheck) => ({
    strict: true,
    noEmit: true,
    types: [],
    target: "es2022",
    module: moduleResolution === "bundler" ? "esnext" : moduleResolution,
    moduleResolution,
    skipLibCheck,
  })),
);

const bare = `import { image, load, type Model, prefixkv, samplePicture } from "prefixkv";
import { evaluate } from "prefixkv/eval";
import { openai } from "prefixkv/openai";
import { describeReport } from "prefixkv/report";
const model: Model = await load();
const messages = [{ role: "user", content: [image(await samplePicture()), "Describe."] }];
const { text, memory } = await model.generate({ messages, cache: prefixkv({ keep: 0.5 }) });
export const bytes: number = memory.resident + text.length;
for await (const part of model.generate({ messages })) part.text satisfies string;
export { describeReport, evaluate, openai };
await model.dispose();
`;

const types = `import { type GenerationResult, image, load, type Model, prefixkv } from "prefixkv";
const model: Model = await load();
const messages = [{ role: "user", content: [image("scene.png"), "Describe."] }];
const result: GenerationResult = await model.generate({ messages, cache: prefixkv({ keep: 0.5 }) });
const bytes: number = result.memory.resident;
// @ts-expect-error: there is no such option
await model.generate({ prompt: "USER:", maxToken: bytes });
// @ts-expect-error: keep is a size
prefixkv({ keep: true });
`;

function ok({ code, out, err }: Outcome): void {
  assert.equal(code, 0, `${out}${err}`);
}

/** The ten lines have described the sample picture and freed half of its cache. */
function describes(outcome: Outcome): void {
  ok(outcome);
  for (const object of described) assert.ok(outcome.out.includes(object), outcome.out);
  const [resident = 0, full = 0] = (outcome.out.match(/(\d+) (\d+)\s*$/)?.slice(1) ?? []).map(Number);
  assert.ok(resident > 0.4 * full && resident < 0.6 * full, `${resident} of ${full}`);
}

/** Whether a size agrees with docs/install.md, within a twentieth. */
function near(bytes: number | undefined, figure: RegExp): boolean {
  const [, told] = page.match(figure) ?? [];
  return Math.abs((bytes ?? 0) - Number(told) * 1e6) < Number(told) * 0.05e6;
}

/** The files in a folder, as the tarball has them. */
function list(from: string): string[] {
  const names = readdirSync(from, { recursive: true }).map(String);
  return names.filter((name) => statSync(join(from, name)).isFile()).sort();
}

const tsc = (project: string) =>
  run(runtime("node"), [join(root, "node_modules/typescript/bin/tsc"), "-p", project], folder("npm"));

test("npm run pack makes the tarballs", slow, async () => {
  const outcome = await pack();
  ok(outcome);
  assert.match(
    outcome.out,
    /^prefixkv: .*\d MB packed, .*\n@prefixkv\/linux-x64-gnu: .*\nnative file: .* needs glibc 2\.\d+\n$/,
  );
});

test("the packages hold what they should, and no more", slow, async () => {
  ok(await pack());
  const { out } = await step("contents", async () => {
    const folders = ["prefixkv", "linux-x64-gnu"].map((name) => join(root, ".cache", "pack", "release", name));
    const report = readFileSync(join(root, ".cache", "pack", "release", "report.json"), "utf8");
    const [files, manifests] = [
      folders.map(list),
      folders.map((name) => readFileSync(join(name, "package.json"), "utf8")),
    ];
    return { code: 0, out: JSON.stringify({ files, manifests, report }), err: "" };
  });
  const { files, manifests, report } = JSON.parse(out) as { files: string[][]; manifests: string[]; report: string };
  const [main = [], native = []] = files;
  const top = [...new Set(main.map((name) => name.split("/")[0]))];
  assert.deepEqual(top, [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "calibrations",
    "data",
    "dist",
    "docs",
    "models",
    "package.json",
  ]);
  assert.deepEqual(native, ["LICENSE", "README.md", "package.json", "prefixkv.linux-x64-gnu.node"]);
  assert.deepEqual(
    main.filter((name) => /\.node$|(^|\/)(train|tests?)\/|(?<!\.d)\.ts$/.test(name)),
    [],
  );
  const data = main.filter((name) => name.startsWith("data/"));
  assert.deepEqual([data.length, data.filter((name) => /^data\/scenes\/scene-\d+\.png$/.test(name)).length], [62, 60]);
  // The limit that docs/install.md states, and its figure.
  const packed = (JSON.parse(report) as { packages: { packedBytes: number }[] }).packages.map(
    (made) => made.packedBytes,
  );
  assert.ok((packed[0] ?? Number.POSITIVE_INFINITY) < 12.5e6, report);
  assert.ok(near(packed[0], /^\| `prefixkv` \| ([\d.]+) MB/m), report);

  const [published, platform] = manifests.map((text) => JSON.parse(text) as Record<string, unknown>);
  for (const field of ["scripts", "devDependencies", "workspaces", "allowScripts", "dependencies", "private"]) {
    assert.equal(published?.[field], undefined, field);
    assert.equal(platform?.[field], undefined, field);
  }
  assert.deepEqual(published?.optionalDependencies, { "@prefixkv/linux-x64-gnu": manifest.version });
  assert.deepEqual([platform?.os, platform?.cpu, platform?.libc], [["linux"], ["x64"], ["glibc"]]);
  assert.equal(platform?.version, manifest.version);
});

test("the packages lint clean: publint, and are the types wrong", slow, async () => {
  ok(await pack());
  const outcome = await step("lint", () => {
    return run(runtime("node"), [join(root, "tests", "package", "lint.ts"), ...tarballs], root, {
      NODE_OPTIONS: "--disable-warning=ExperimentalWarning",
    });
  });
  ok(outcome);
  assert.deepEqual(JSON.parse(outcome.out), []);
});

test("npm installs them without a registry", slow, async () => ok(await installed()));

test("the packed types check under nodenext and bundler, and refuse what is wrong", slow, async () => {
  ok(await installed());
  for (const resolution of ["nodenext", "bundler"])
    ok(await step(`types ${resolution}`, () => tsc(`${resolution}.json`)));
});

test("the types need no other package and no library, in an empty project", slow, async () => {
  ok(await installed());
  for (const compilerOptions of projects) {
    const { moduleResolution, skipLibCheck } = compilerOptions;
    const name = `bare ${moduleResolution} ${skipLibCheck}`;
    const outcome = await step(name, () => {
      const file = join(folder("npm"), "bare.json");
      writeFileSync(file, JSON.stringify({ compilerOptions, files: ["bare.ts"] }));
      return tsc("bare.json");
    });
    ok(outcome);
  }
});

test("the README's commands and ten lines work in an empty folder on three runtimes", slow, async () => {
  ok(await pack());
  assert.ok(tenLines.split("\n").length > 9, "README.md has its ten lines");
  const [install = "", runs = ""] = commands.split("\n");
  const lines = [runs, ...(runs.split("# or: ")[1] ?? "").split(", ")].map((line) => line.split(" #")[0] ?? "");
  assert.deepEqual(
    lines.map((line) => line.split(" ")[0]),
    ["node", "bun", "deno"],
  );
  const cwd = folder("readme");
  const shell = (line: string) => {
    const [command = "", ...args] = line.trim().split(/\s+/);
    const offline = { npm_config_offline: "true", npm_config_cache: folder("npm cache"), npm_config_audit: "false" };
    return run(
      { npm, node: runtime("node"), bun: runtime("bun"), deno: runtime("deno") }[command] ?? command,
      args,
      cwd,
      offline,
    );
  };
  ok(
    await step("readme install", () => {
      for (const file of tarballs) copyFileSync(file, join(cwd, basename(file)));
      writeFileSync(join(cwd, "ten.mjs"), tenLines);
      return shell(install);
    }),
  );
  for (const line of lines) describes(await step(`readme ${line}`, () => shell(line)));
});

test("older Nodes are told which runtimes work, and nothing else", slow, async () => {
  ok(await installed());
  const cwd = folder("npm");
  // First a Node that pretends to have another version; then the Node of the system, where it is an old one.
  const pretend = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.11.0' } })";
  const faked = ["--import", `data:text/javascript,${encodeURIComponent(pretend)}`];
  const outcomes = [await step("node 20, pretended", () => run(runtime("node"), [...faked, "old.mjs"], cwd))];
  const system = which("node");
  const version = system && Number.parseInt((await run(system, ["-p", "process.versions.node"], cwd)).out, 10);
  if (system && version && version < 22)
    outcomes.push(await step("node of the system", () => run(system, ["old.mjs"], cwd)));
  for (const { code, out } of outcomes) {
    assert.equal(code, 0, out);
    for (const line of out.trim().split("\n"))
      assert.match(
        line,
        /^prefixkv needs Node 22 or newer, Bun 1\.4 or newer, or Deno 2\.9 or newer; this is Node (1\d|20)\./,
      );
    assert.equal(out.trim().split("\n").length, 4);
  }
});

test("the ten lines of the README run under Bun, Deno and Node", slow, async () => {
  ok(await installed());
  const cwd = folder("npm");
  describes(await step("ten bun", () => run(runtime("bun"), ["ten.ts"], cwd)));
  const deno = ["run", "--no-lock", "--no-check", "--allow-read", "--allow-ffi", "ten.ts"];
  describes(await step("ten deno", () => run(runtime("deno"), deno, cwd)));
  // Node 22 does not know `await using`: what the test of the types compiled.
  ok(await step("types nodenext", () => tsc("nodenext.json")));
  describes(await step("ten node", () => run(runtime("node"), [join("nodenext", "ten.js")], cwd)));
});

test("the command line is installed", slow, async () => {
  ok(await installed());
  const program = join("node_modules", ".bin", "prefixkv");
  const outcome = await step("cli", () =>
    run(join(folder("npm"), program), ["describe", "scene.png", "--json"], folder("npm")),
  );
  ok(outcome);
  const { text } = JSON.parse(outcome.out) as { text: string };
  for (const object of described) assert.ok(text.includes(object), text);
  // The library that draws its charts comes with the package.
  const reported = await step("report", async () => {
    const args = ["describe", "scene.png", "--report", "report.html", "--max-tokens", "4"];
    const { code, err } = await run(join(folder("npm"), program), args, folder("npm"));
    return { code, out: code === 0 ? readFileSync(join(folder("npm"), "report.html"), "utf8").slice(0, 100) : "", err };
  });
  ok(reported);
  assert.match(reported.out, /^<!doctype html>/);
});

test("Bun installs them without a registry and runs the ten lines", slow, async () => {
  ok(await pack());
  const outcome = await step("bun add", async () => {
    const cwd = folder("bun");
    programs(cwd);
    writeFileSync(join(cwd, "package.json"), '{ "type": "module" }\n');
    // Nobody listens at this port: an optional dependency that comes as a tarball needs nobody.
    const added = await run(runtime("bun"), ["add", "--registry", "http://127.0.0.1:9", ...tarballs], cwd, {
      BUN_INSTALL_CACHE_DIR: folder("bun cache"),
    });
    return added.code === 0 ? run(runtime("bun"), ["ten.ts"], cwd) : added;
  });
  describes(outcome);
});

test("the modules for JSR are publishable and give what the npm package gives", slow, async () => {
  ok(await installed());
  const cwd = folder("npm");
  const outcome = await step("jsr", async () => {
    const jsr = join(cwd, "jsr");
    cpSync(join(root, ".cache", "pack", "release", "jsr"), jsr, { recursive: true });
    // The npm package that the modules name is not published: here it is the installed one.
    copyFileSync(join(cwd, "package.json"), join(jsr, "package.json"));
    symlinkSync(join(cwd, "node_modules"), join(jsr, "node_modules"));
    const env = { DENO_DIR: folder("deno") };
    const published = await run(runtime("deno"), ["publish", "--dry-run", "--allow-dirty"], jsr, env);
    if (published.code !== 0) return published;
    return run(runtime("deno"), ["run", "--no-lock", "--allow-read", "--allow-ffi", "jsr.ts"], cwd, env);
  });
  describes(outcome);
});

test("bun build --compile makes one file that describes the picture in an empty folder", slow, async () => {
  ok(await installed());
  const outcome = await step("compiled", async () => {
    const cwd = folder("npm");
    const args = ["build", "--compile", "ten.ts", "--outfile", join(folder("empty"), "ten")];
    const built = await run(runtime("bun"), args, cwd);
    if (built.code !== 0) return built;
    const { size } = statSync(join(folder("empty"), "ten"));
    const outcome = await alone("ten", []);
    return { ...outcome, err: `${outcome.err}\n${size}` };
  });
  describes(outcome);
  assert.ok(near(Number(outcome.err.split("\n").at(-1)), /executable of the ten lines .*? has (\d+) MB/), outcome.err);
});

test("the package for CUDA is found beside the main one, and refused without a GPU", slow, async () => {
  ok(await installed());
  const cwd = folder("npm");
  const outcome = await step("cuda", async () => {
    // The addon for the CPU plays the part: it loads, and lists no GPU.
    const there = join(cwd, "node_modules", "@prefixkv", "linux-x64-gnu-cuda");
    const { cudaManifest, platforms } = await import(new URL("../../scripts/platforms.mjs", import.meta.url).href);
    const json = cudaManifest(platforms[0], manifest) as { main: string };
    mkdirSync(there);
    writeFileSync(join(there, "package.json"), JSON.stringify(json));
    copyFileSync(join(root, "native", "prefixkv.linux-x64-gnu.node"), join(there, json.main));
    writeFileSync(
      join(cwd, "cuda.mjs"),
      `import { about, load } from "prefixkv";
const told = await load(undefined, { device: "cuda" }).catch(({ code, message }) => [code, message]);
console.log(JSON.stringify([told, (await about({ device: "cuda" })).devices]));
`,
    );
    try {
      const deno = ["run", "--no-lock", "--allow-read", "--allow-ffi", "--no-prompt", "cuda.mjs"];
      const outcomes = [
        await run(runtime("bun"), ["cuda.mjs"], cwd),
        await run(runtime("deno"), deno, cwd),
        await run(runtime("node"), ["cuda.mjs"], cwd),
      ];
      return {
        code: Math.max(...outcomes.map(({ code }) => code)),
        out: JSON.stringify(outcomes.map(({ out }) => JSON.parse(out || "null"))),
        err: outcomes.map(({ err }) => err).join(""),
      };
    } finally {
      rmSync(there, { recursive: true });
    }
  });
  ok(outcome);
  for (const [[code, message], devices] of JSON.parse(outcome.out) as [[string, string], string[]][]) {
    assert.deepEqual([code, devices], ["device", ["cpu"]]);
    assert.match(message, /^device `cuda:0` cannot be used: this build runs on the CPU only/);
  }
});

test("a compiled program has no build for CUDA, and takes one that is named", slow, async () => {
  ok(await installed());
  const outcome = await step("compiled device", async () => {
    const program = join(folder("empty"), "device");
    const main = join("node_modules", "prefixkv", "dist", "cli", "main.js");
    const built = await run(runtime("bun"), ["build", "--compile", main, "--outfile", program], folder("npm"));
    if (built.code !== 0) return built;
    const args = ["score", "--prompt", "a", "--answer", "b", "--device", "cuda", "--json"];
    const env = { XDG_CACHE_HOME: folder("cache") };
    try {
      const none = await run(program, args, folder("empty"), env);
      const PREFIXKV_CUDA_NATIVE = join(root, "native", "prefixkv.linux-x64-gnu.node");
      const named = await run(program, args, folder("empty"), { ...env, PREFIXKV_CUDA_NATIVE });
      return { code: none.code === 1 && named.code === 1 ? 0 : 1, out: `[${none.out},${named.out}]`, err: none.err };
    } finally {
      rmSync(program, { force: true });
    }
  });
  ok(outcome);
  const [none, named] = JSON.parse(outcome.out) as { error: { code: string; message: string } }[];
  assert.deepEqual([none?.error.code, named?.error.code], ["device", "device"]);
  assert.match(none?.error.message ?? "", /a compiled program looks for it only where PREFIXKV_CUDA_NATIVE says/i);
  assert.match(named?.error.message ?? "", /this build runs on the CPU only/);
});

test("the command line compiles too, with its self test", slow, async () => {
  ok(await installed());
  const outcome = await step("compiled cli", async () => {
    const main = join("node_modules", "prefixkv", "dist", "cli", "main.js");
    const built = await run(
      runtime("bun"),
      ["build", "--compile", main, "--outfile", join(folder("empty"), "cli")],
      folder("npm"),
    );
    return built.code === 0 ? alone("cli", ["doctor", "--json"]) : built;
  });
  ok(outcome);
  const report = JSON.parse(outcome.out) as { ok: boolean; version: string };
  assert.deepEqual([report.ok, report.version], [true, manifest.version]);
});

/** Runs a compiled program while what it was made from is away. */
async function alone(name: string, args: string[]): Promise<Outcome> {
  const modules = join(folder("npm"), "node_modules");
  renameSync(modules, `${modules}.away`);
  try {
    return await run(join(folder("empty"), name), args, folder("empty"), { XDG_CACHE_HOME: folder("cache") });
  } finally {
    renameSync(`${modules}.away`, modules);
    rmSync(join(folder("empty"), name), { force: true });
  }
}
