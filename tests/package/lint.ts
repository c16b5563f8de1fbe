// Run as a program of its own, because it loads a compiler of its own: what publint and attw have against tarballs, as JSON.
// That `require` finds an ES module is as it should be; node10 does not know `exports`, and is none of our runtimes.
import { readFileSync } from "node:fs";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";

const found: string[] = [];
for (const file of process.argv.slice(2)) {
  const bytes = new Uint8Array(readFileSync(file));
  const { messages } = await publint({ pack: { tarball: bytes.buffer }, strict: true });
  found.push(...messages.map(({ code, path }) => `${file}: publint ${code} at ${path.join(".")}`));
  const analysis = await checkPackage(createPackageFromTarballData(bytes));
  // The package of a platform has no types: nobody imports it.
  if (analysis.types === false) continue;
  for (const problem of analysis.problems) {
    if (problem.kind === "CJSResolvesToESM" || ("resolutionKind" in problem && problem.resolutionKind === "node10"))
      continue;
    found.push(`${file}: attw ${JSON.stringify(problem)}`);
  }
}
process.stdout.write(JSON.stringify(found));
