// The scenes in which two versions are compared.
import type { CacheMethod } from "../ts/index.ts";

export interface Scene {
  name: string;
  weights: "f32" | "f16";
  /** Tokens of the prompt. */
  context: number;
  /** Tokens after the first; 0 measures the prompt. */
  steps: number;
  requests: number;
  cache?: CacheMethod;
}

const methods: [string, CacheMethod | undefined][] = [
  ["full", undefined],
  ["prefixkv", { method: "prefixkv", variant: "paper", keep: 0.5 }],
  ["prefixkv tuned", { method: "prefixkv", keep: 0.5 }],
  ["h2o", { method: "h2o", keep: 0.5 }],
  ["snapkv", { method: "snapkv", keep: 0.5 }],
  ["knorm", { method: "knorm", keep: 0.5 }],
];

const scene = (kind: string, weights: "f32" | "f16", context: number, steps: number, requests = 1): Scene => ({
  name: `${kind} ${context} ${weights}`,
  weights,
  context,
  steps,
  requests,
});

export const scenes: Scene[] = [
  scene("prompt", "f32", 512, 0),
  scene("prompt", "f16", 512, 0),
  scene("decode", "f32", 512, 64),
  scene("decode", "f16", 512, 64),
  scene("decode", "f32", 4096, 64),
  scene("decode", "f16", 4096, 64),
  scene("16 together", "f32", 512, 32, 16),
  ...methods.map(([name, cache]) => ({ ...scene(`prompt, ${name},`, "f32", 2048, 0), ...(cache && { cache }) })),
  ...methods.map(([name, cache]) => ({ ...scene(`decode, ${name},`, "f32", 2048, 64), ...(cache && { cache }) })),
];
