// Run as a program of its own: imports compiled snippets one after the other and says on standard error how each went.
// Arguments: a JSON file with [{ name, file, cwd }].
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [jobFile = ""] = process.argv.splice(2);
const jobs = JSON.parse(readFileSync(jobFile, "utf8")) as { name: string; file: string; cwd: string }[];
for (const { name, file, cwd } of jobs) {
  process.chdir(cwd);
  let error: string | null = null;
  try {
    await import(pathToFileURL(file).href);
  } catch (thrown) {
    error = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  }
  process.stderr.write(`\nsnippet ${JSON.stringify({ name, error })}\n`);
}
