// Installs the dev dependencies from the lock file, unless the same lock file has been installed already.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fail, hashFiles, must, readStamp, root, systemPath, which, windows, writeStamp } from "./shell.mjs";

const stamp = "node_modules/.prefixkv-install";

export function install() {
  const want = hashFiles(["package-lock.json", "bun.lock", "tools/node22/package.json"]);
  if (readStamp(stamp) === want) return;
  const agent = process.env.npm_config_user_agent ?? "";
  const npm = npmCommand();
  if ((agent.startsWith("bun/") || !npm) && bun()) {
    must(bun(), ["install", "--frozen-lockfile"], { path: systemPath });
  } else if (npm) {
    must(npm[0], [...npm.slice(1), "ci", "--no-audit", "--no-fund", "--loglevel=error"], { path: systemPath });
  } else {
    fail(
      "Neither npm nor bun was found. Install Node (https://nodejs.org) or Bun (https://bun.sh) and run this again.",
    );
  }
  writeStamp(stamp, want);
}

function bun() {
  return process.versions.bun ? process.execPath : which("bun");
}

/** The npm that runs this script, else the one on the PATH. */
export function npmCommand() {
  const { npm_execpath: script, npm_node_execpath: node } = process.env;
  if (script && node && /npm-cli\.[cm]?js$/.test(script) && !node.startsWith(join(root, "node_modules"))) {
    if (existsSync(script) && existsSync(node)) return [node, script];
  }
  const npm = which(windows ? "npm.cmd" : "npm");
  return npm && [npm];
}
