// Imported first by every entry, for what it does: refuses runtimes that the rest does not work in, before that fails by itself.
// Nothing that such a runtime cannot parse may be imported but by `import()`.
const { node, bun, deno } = process.versions as Readonly<Record<string, string | undefined>>;
if (node !== undefined && bun === undefined && deno === undefined && Number.parseInt(node, 10) < 22)
  throw new Error(`prefixkv needs Node 22 or newer, Bun 1.4 or newer, or Deno 2.9 or newer; this is Node ${node}`);

export {};
