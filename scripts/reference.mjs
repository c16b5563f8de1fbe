// `npm run reference [-- --check]`: writes docs/reference from the doc comments of everything that the package exports.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { labelled, signature, type } from "./reference_types.mjs";
import { fail, root, runtime } from "./shell.mjs";

const folder = join(root, "docs", "reference");

/** Every page by its file name. */
export function pages() {
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const entries = Object.entries(exports).flatMap(([path, target]) => {
    const source = target.types?.replace("./dist/", "ts/").replace(/\.d\.ts$/, ".ts");
    return source ? [{ name: path.replace(/^\./, "prefixkv"), source }] : [];
  });
  const known = new Map();
  const made = entries.map((entry) => {
    const file = `${entry.name.replace("/", "-")}.md`;
    const symbols = document(entry.source);
    for (const { name } of symbols) if (!known.has(name)) known.set(name, { file, anchor: anchor(name) });
    return { ...entry, file, symbols };
  });
  const contents = new Map(made.map((page) => [page.file, render(page, known)]));
  contents.set("README.md", overview(made));
  return contents;
}

/** The exported symbols of a file with those types of their signatures that are only reachable through them. */
function document(source) {
  const symbols = doc(source);
  const names = new Set(symbols.map(({ name }) => name));
  for (const { file, name } of hidden(symbols, names)) {
    const found = doc(file).find((symbol) => symbol.name === name);
    if (found && !names.has(name)) {
      names.add(name);
      symbols.push(found);
    }
  }
  // A list that grows while it is gone through: what a type is made of may be made of more.
  for (const symbol of symbols) {
    for (const name of named(symbol.declarations.map(made))) {
      const found = wire(name);
      if (found && !names.has(name)) {
        names.add(name);
        symbols.push(found);
      }
    }
  }
  return symbols;
}

/** The parts of a declaration that its page is to explain. */
function made({ kind, def }) {
  return kind === "interface" ? parts(def) : kind === "typeAlias" ? def.tsType : [];
}

/** A type that crosses a door, by its name. */
function wire(name) {
  return doc("ts/generated/wire.ts").find((symbol) => symbol.name === name);
}

/** The members of an interface, those of bases without an example of their own included: nobody names such a base. */
function parts(def) {
  const own = def.properties ?? [];
  const inherited = (def.extends ?? []).flatMap((base) => {
    if (!isWire(base)) return [];
    const { inner, keeps } = looked(base);
    return parts(wire(inner).declarations[0].def).filter(({ name }) => keeps(name));
  });
  return [...inherited, ...own];
}

/** The type of a base, within `Pick` and `Omit`, and which of its members these leave. */
function looked({ value }) {
  const [inner, names] = value?.typeParams ?? [];
  const listed = (names?.kind === "union" ? names.value : [names]).map((name) => name?.value?.string);
  if (value?.typeName === "Pick") return { inner: inner.value.typeName, keeps: (name) => listed.includes(name) };
  if (value?.typeName === "Omit") return { inner: inner.value.typeName, keeps: (name) => !listed.includes(name) };
  return { inner: value?.typeName, keeps: () => true };
}

/** Whether a base has its members shown in what extends it. */
function isWire(base) {
  const { inner } = looked(base);
  const found = inner && wire(inner);
  return found !== undefined && comment(found).examples.length === 0;
}

/** The names of all types in a tree of `deno doc`. */
function named(node) {
  if (typeof node !== "object" || node === null) return [];
  const own = node.kind === "typeRef" ? [node.value.typeName] : [];
  return [...own, ...Object.values(node).flatMap(named)];
}

/** Options whose interfaces are exported by the file they are in, but not by an entry of the package. */
function hidden(symbols, names) {
  const found = [];
  for (const { declarations } of symbols) {
    for (const declaration of declarations) {
      const file = fileURLToPath(declaration.location.filename);
      for (const param of declaration.def?.params ?? []) {
        const reference = (param.left ?? param).tsType;
        const name = reference?.kind === "typeRef" ? reference.value.typeName : "";
        const { kind, specifier } = reference?.value?.resolution ?? {};
        if (kind === undefined || !/Options$/.test(name) || names.has(name)) continue;
        found.push({ file: kind === "import" ? join(dirname(file), specifier) : file, name });
      }
    }
  }
  return found;
}

const documented = new Map();

function doc(file) {
  const path = file.startsWith("/") ? file : join(root, file);
  if (!documented.has(path)) {
    const args = ["doc", "--json", "--quiet", path];
    const { status, stdout, stderr } = spawnSync(runtime("deno"), args, {
      encoding: "utf8",
      maxBuffer: 1 << 27,
      env: { ...process.env, NO_COLOR: "1" },
    });
    if (status !== 0) fail(`deno ${args.join(" ")} failed:\n${stderr}`);
    documented.set(path, JSON.parse(stdout).nodes[pathToFileURL(path).href].symbols);
  }
  return [...documented.get(path)];
}

function overview(made) {
  const lines = ["# API reference", "", ...intro, ""];
  for (const { name, file, symbols } of made) {
    lines.push(`## [\`${name}\`](${file})`, "", "| name | what it is |", "| --- | --- |");
    for (const symbol of symbols) {
      const text = comment(symbol).doc.split(/(?<=\.)\s/)[0];
      lines.push(`| [\`${symbol.name}\`](${file}#${anchor(symbol.name)}) | ${cell(text)} |`);
    }
    lines.push("");
  }
  return lines.join("\n");
}

const intro = [
  "Written by `npm run reference` from the doc comments; edit those instead. Every example is run by the tests.",
];

function render({ name, symbols }, known) {
  const lines = [`# \`${name}\``, "", ...intro, ""];
  for (const symbol of symbols) lines.push(...section(symbol, known));
  return lines.join("\n");
}

function section(symbol, known) {
  const { name, declarations } = symbol;
  const [declaration] = declarations;
  const { doc: text, examples } = comment(symbol);
  const lines = [`## ${name}`, "", "```typescript", ...declarations.map((one) => head(name, one)), "```", ""];
  if (text !== "") lines.push(links(text, known), "");
  const rows = members(declaration);
  if (rows.length > 0) {
    lines.push("| member | type | |", "| --- | --- | --- |");
    for (const { label, shown, doc } of rows)
      lines.push(`| \`${label}\` | ${code(shown)} | ${cell(links(doc, known))} |`);
    lines.push("");
  }
  for (const example of examples) lines.push(example.trim(), "");
  return lines;
}

function head(name, { kind, def }) {
  switch (kind) {
    case "function":
      return `function ${name}${signature(def)}`;
    case "class": {
      const bases = (def.implements ?? []).map(type).join(", ");
      return `class ${name}${def.extends ? ` extends ${def.extends}` : ""}${bases ? ` implements ${bases}` : ""}`;
    }
    case "interface": {
      const bases = (def.extends ?? [])
        .filter((base) => !isWire(base))
        .map(type)
        .join(", ");
      return `interface ${name}${bases ? ` extends ${bases}` : ""}`;
    }
    case "typeAlias":
      return `type ${name} = ${type(def.tsType)}`;
    case "variable":
      return `const ${name}: ${type(def.tsType)}`;
    default:
      throw new Error(`scripts/reference.mjs does not know declarations of kind "${kind}" yet: ${name}`);
  }
}

function members({ kind, def }) {
  if (kind !== "class" && kind !== "interface") return [];
  const open = (member) => member.accessibility !== "private" && !tags(member).some(({ kind }) => kind === "internal");
  const doc = (member) => member.jsDoc?.doc ?? "";
  const made = (def.constructors ?? []).filter(open).map((member) => ({
    label: "new",
    shown: signature(member).replace(/: void$/, ""),
    doc: doc(member),
  }));
  const properties = (kind === "interface" ? parts(def) : (def.properties ?? [])).filter(open).map((member) => ({
    label: `${member.isStatic ? "static " : ""}${labelled(member)}`,
    shown: type(member.tsType),
    doc: doc(member),
  }));
  const declared = (def.methods ?? []).filter((member) => open(member) && member.kind !== "setter");
  // Of overloads, the one with a body is nobody's business, and the first one has the comment.
  const callable = declared.filter(
    (member) =>
      !(member.functionDef?.hasBody && declared.some((other) => other !== member && other.name === member.name)),
  );
  const methods = callable.map((member) => {
    const getter = member.kind === "getter";
    const called = member.functionDef ?? member;
    return {
      label: `${member.isStatic ? "static " : ""}${member.name}${getter ? "" : "()"}`,
      shown: getter ? type(called.returnType) : signature(called),
      doc: doc(member) || doc(callable.find(({ name }) => name === member.name)),
    };
  });
  return [...made, ...properties, ...methods];
}

function tags({ jsDoc }) {
  return jsDoc?.tags ?? [];
}

/** The first comment of a symbol and its examples. */
function comment({ declarations }) {
  const one = declarations.find(({ jsDoc }) => jsDoc?.doc) ?? declarations[0];
  const examples = tags(one).flatMap(({ kind, doc }) => (kind === "example" ? [doc] : []));
  return { doc: (one.jsDoc?.doc ?? "").trim(), examples };
}

function links(text, known) {
  return text.replace(/\{@link ([\w.]+)\}/g, (_, name) => {
    const target = known.get(name);
    return target ? `[${name}](${target.file}#${target.anchor})` : `\`${name}\``;
  });
}

function anchor(name) {
  return name.toLowerCase();
}

function code(text) {
  return `\`${text.replaceAll("|", "\\|")}\``;
}

function cell(text) {
  return text
    .trim()
    .replace(/\s*\n\s*/g, " ")
    .replaceAll("|", "\\|");
}

function main() {
  const made = pages();
  if (process.argv.includes("--check")) {
    const found = existsSync(folder) ? readdirSync(folder) : [];
    const stale = [...made].filter(
      ([name, text]) => !found.includes(name) || readFileSync(join(folder, name), "utf8") !== text,
    );
    const extra = found.filter((name) => !made.has(name));
    if (stale.length + extra.length > 0) {
      fail(
        `docs/reference is stale (${[...stale.map(([name]) => name), ...extra].join(", ")}): run \`npm run reference\``,
      );
    }
    return;
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of made) writeFileSync(join(folder, name), text);
}

main();
