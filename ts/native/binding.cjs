// Finds the native addon of this platform. The requires are literal so that bundlers and `bun build --compile` see them:
// first the file that this repository builds, then the platform package.
"use strict";

const { existsSync } = require("node:fs");

function musl() {
  return existsSync("/etc/alpine-release");
}

/** Loads the addon through Node-API. */
function load() {
  return first((candidate) => candidate.open(), "native");
}

/** Finds the addon's file without loading it. */
function locate() {
  return first((candidate) => candidate.path(), "path");
}

function first(take, name) {
  const attempts = [];
  for (const candidate of candidates()) {
    try {
      return { [name]: take(candidate), file: candidate.file, attempts };
    } catch (error) {
      attempts.push({ file: candidate.file, reason: error instanceof Error ? error.message : String(error) });
    }
  }
  return { [name]: null, file: null, attempts };
}

function candidates() {
  switch (`${process.platform}-${process.arch}`) {
    case "linux-x64":
      return musl()
        ? [
            {
              file: "native/prefixkv.linux-x64-musl.node",
              open: () => require("../../native/prefixkv.linux-x64-musl.node"),
              path: () => require.resolve("../../native/prefixkv.linux-x64-musl.node"),
            },
          ]
        : [
            {
              file: "native/prefixkv.linux-x64-gnu.node",
              open: () => require("../../native/prefixkv.linux-x64-gnu.node"),
              path: () => require.resolve("../../native/prefixkv.linux-x64-gnu.node"),
            },
            {
              file: "@prefixkv/linux-x64-gnu",
              open: () => require("@prefixkv/linux-x64-gnu"),
              path: () => require.resolve("@prefixkv/linux-x64-gnu"),
            },
          ];
    case "linux-arm64":
      return musl()
        ? [
            {
              file: "native/prefixkv.linux-arm64-musl.node",
              open: () => require("../../native/prefixkv.linux-arm64-musl.node"),
              path: () => require.resolve("../../native/prefixkv.linux-arm64-musl.node"),
            },
          ]
        : [
            {
              file: "native/prefixkv.linux-arm64-gnu.node",
              open: () => require("../../native/prefixkv.linux-arm64-gnu.node"),
              path: () => require.resolve("../../native/prefixkv.linux-arm64-gnu.node"),
            },
            {
              file: "@prefixkv/linux-arm64-gnu",
              open: () => require("@prefixkv/linux-arm64-gnu"),
              path: () => require.resolve("@prefixkv/linux-arm64-gnu"),
            },
          ];
    case "darwin-arm64":
      return [
        {
          file: "native/prefixkv.darwin-arm64.node",
          open: () => require("../../native/prefixkv.darwin-arm64.node"),
          path: () => require.resolve("../../native/prefixkv.darwin-arm64.node"),
        },
        {
          file: "@prefixkv/darwin-arm64",
          open: () => require("@prefixkv/darwin-arm64"),
          path: () => require.resolve("@prefixkv/darwin-arm64"),
        },
      ];
    case "darwin-x64":
      return [
        {
          file: "native/prefixkv.darwin-x64.node",
          open: () => require("../../native/prefixkv.darwin-x64.node"),
          path: () => require.resolve("../../native/prefixkv.darwin-x64.node"),
        },
      ];
    case "win32-x64":
      return [
        {
          file: "native/prefixkv.win32-x64-msvc.node",
          open: () => require("../../native/prefixkv.win32-x64-msvc.node"),
          path: () => require.resolve("../../native/prefixkv.win32-x64-msvc.node"),
        },
      ];
    default:
      return [];
  }
}

module.exports = { load, locate };
