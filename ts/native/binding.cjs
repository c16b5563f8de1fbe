// Finds the native addon of this platform. The requires are literal so that bundlers and `bun build --compile` see them:
// first the file that this repository builds, then the platform package.
"use strict";

const { existsSync } = require("node:fs");

function musl() {
  return existsSync("/etc/alpine-release");
}

function load() {
  const attempts = [];
  for (const [file, open] of candidates()) {
    try {
      return { native: open(), file, attempts };
    } catch (error) {
      attempts.push({ file, reason: error instanceof Error ? error.message : String(error) });
    }
  }
  return { native: null, file: null, attempts };
}

function candidates() {
  switch (`${process.platform}-${process.arch}`) {
    case "linux-x64":
      return musl()
        ? [["native/prefixkv.linux-x64-musl.node", () => require("../../native/prefixkv.linux-x64-musl.node")]]
        : [
            ["native/prefixkv.linux-x64-gnu.node", () => require("../../native/prefixkv.linux-x64-gnu.node")],
            ["@prefixkv/linux-x64-gnu", () => require("@prefixkv/linux-x64-gnu")],
          ];
    case "linux-arm64":
      return musl()
        ? [["native/prefixkv.linux-arm64-musl.node", () => require("../../native/prefixkv.linux-arm64-musl.node")]]
        : [
            ["native/prefixkv.linux-arm64-gnu.node", () => require("../../native/prefixkv.linux-arm64-gnu.node")],
            ["@prefixkv/linux-arm64-gnu", () => require("@prefixkv/linux-arm64-gnu")],
          ];
    case "darwin-arm64":
      return [
        ["native/prefixkv.darwin-arm64.node", () => require("../../native/prefixkv.darwin-arm64.node")],
        ["@prefixkv/darwin-arm64", () => require("@prefixkv/darwin-arm64")],
      ];
    case "darwin-x64":
      return [["native/prefixkv.darwin-x64.node", () => require("../../native/prefixkv.darwin-x64.node")]];
    case "win32-x64":
      return [["native/prefixkv.win32-x64-msvc.node", () => require("../../native/prefixkv.win32-x64-msvc.node")]];
    default:
      return [];
  }
}

module.exports = load();
