// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.

export const generationFlags = [
  {
    name: "max-tokens",
    type: "integer",
    value: "N",
    text: "the most tokens to generate (default: 512, or what the model has room for)",
  },
  { name: "stop", type: "strings", value: "TEXT", text: "texts that end the generation; may be given more than once" },
  { name: "ignore-eos", type: "boolean", text: "goes on after the model's end token" },
  {
    name: "temperature",
    type: "number",
    value: "X",
    text: "0 takes the most likely token each time; higher values spread the choice (default: 0)",
  },
  { name: "top-k", type: "integer", value: "N", text: "choose among this many likeliest tokens (default: no limit)" },
  {
    name: "top-p",
    type: "number",
    value: "X",
    text: "choose among the likeliest tokens that together have this probability (default: no limit)",
  },
  {
    name: "min-p",
    type: "number",
    value: "X",
    text: "choose among tokens at least this share as likely as the likeliest (default: no limit)",
  },
  {
    name: "repetition-penalty",
    type: "number",
    value: "X",
    text: "above 1, tokens that have occurred become less likely (default: 1)",
  },
  {
    name: "frequency-penalty",
    type: "number",
    value: "X",
    text: "above 0, tokens become less likely with each time that the answer has had them (default: 0)",
  },
  {
    name: "presence-penalty",
    type: "number",
    value: "X",
    text: "above 0, tokens that the answer has had become less likely (default: 0)",
  },
  { name: "seed", type: "integer", value: "N", text: "the same seed and request give the same text (default: random)" },
] as const;

export const scoreFlags = [
  { name: "kept", type: "boolean", text: "also says which positions are kept after the prompt" },
  {
    name: "kl",
    type: "boolean",
    text: "also reports each token's divergence from the full cache, which reads the answer alongside the method",
  },
] as const;

export const engineFlags = [
  {
    name: "weights",
    type: "string",
    value: "NAME",
    text: "hold the weights of the linear layers as f32, f16, q8_0 or q4_k (default: f32, or what a GGUF file has)",
  },
  { name: "threads", type: "integer", value: "N", text: "threads of the whole process (default: one per core)" },
  {
    name: "cache-limit",
    type: "bytes",
    value: "SIZE",
    text: "most bytes that all key-value caches of the model take together, e.g. 2GiB (default: no limit)",
  },
  { name: "rotate-values", type: "boolean", text: "folds the Hadamard transform of values into the weights" },
] as const;
