// Finds the native addon of this platform. The requires are literal so that bundlers and `bun build --compile` see them, and each
// stands in its own `try`, because bundlers forgive what they cannot find only there: first the file that this repository builds,
// then the platform package.
"use strict";

const { existsSync } = require("node:fs");

/** The platform as scripts/platforms.mjs names it. */
function platform() {
  const name = `${process.platform}-${process.arch}`;
  if (process.platform === "win32") return `${name}-msvc`;
  if (process.platform !== "linux") return name;
  return `${name}-${alpine() ? "musl" : "gnu"}`;
}

function alpine() {
  try {
    return existsSync("/etc/alpine-release");
  } catch {
    // Deno may read some folders only, and not this file.
    return false;
  }
}

/** Loads the addon through Node-API. */
function load() {
  return first("open", "native");
}

/** Finds the addon's file without loading it. */
function locate() {
  return first("path", "path");
}

function first(action, name) {
  const attempts = [];
  for (const candidate of candidates[platform()] ?? []) {
    const { value, error } = candidate[action]();
    if (error === undefined) return { [name]: value, file: candidate.file, attempts };
    attempts.push({ file: candidate.file, reason: error instanceof Error ? error.message : String(error) });
  }
  return { [name]: null, file: null, attempts };
}

const candidates = {
  "linux-x64-gnu": [
    {
      file: "native/prefixkv.linux-x64-gnu.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.linux-x64-gnu.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.linux-x64-gnu.node") };
        } catch (error) {
          return { error };
        }
      },
    },
    {
      file: "@prefixkv/linux-x64-gnu",
      open() {
        try {
          return { value: require("@prefixkv/linux-x64-gnu") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("@prefixkv/linux-x64-gnu") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
  "linux-x64-musl": [
    {
      file: "native/prefixkv.linux-x64-musl.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.linux-x64-musl.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.linux-x64-musl.node") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
  "linux-arm64-gnu": [
    {
      file: "native/prefixkv.linux-arm64-gnu.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.linux-arm64-gnu.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.linux-arm64-gnu.node") };
        } catch (error) {
          return { error };
        }
      },
    },
    {
      file: "@prefixkv/linux-arm64-gnu",
      open() {
        try {
          return { value: require("@prefixkv/linux-arm64-gnu") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("@prefixkv/linux-arm64-gnu") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
  "linux-arm64-musl": [
    {
      file: "native/prefixkv.linux-arm64-musl.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.linux-arm64-musl.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.linux-arm64-musl.node") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
  "darwin-arm64": [
    {
      file: "native/prefixkv.darwin-arm64.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.darwin-arm64.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.darwin-arm64.node") };
        } catch (error) {
          return { error };
        }
      },
    },
    {
      file: "@prefixkv/darwin-arm64",
      open() {
        try {
          return { value: require("@prefixkv/darwin-arm64") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("@prefixkv/darwin-arm64") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
  "darwin-x64": [
    {
      file: "native/prefixkv.darwin-x64.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.darwin-x64.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.darwin-x64.node") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
  "win32-x64-msvc": [
    {
      file: "native/prefixkv.win32-x64-msvc.node",
      open() {
        try {
          return { value: require("../../native/prefixkv.win32-x64-msvc.node") };
        } catch (error) {
          return { error };
        }
      },
      path() {
        try {
          return { value: require.resolve("../../native/prefixkv.win32-x64-msvc.node") };
        } catch (error) {
          return { error };
        }
      },
    },
  ],
};

module.exports = { load, locate, platform };
