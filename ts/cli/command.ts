import { engineFlags } from "../generated/flags.ts";
import type { PickDoor } from "../native/device.ts";
import type { Values } from "./values.ts";

/** The program's side of a command: where to write, when to stop, and how to reach the engine. */
export interface Streams {
  out(text: string): void;
  err(text: string): void;
  /** Standard error is a terminal: a progress bar makes sense. */
  interactive: boolean;
  /** Escape codes for colour are welcome on standard error. */
  color: boolean;
  signal: AbortSignal;
  /** The next line of standard input, after a prompt where a person types; undefined at its end and once the signal has fired. */
  ask(prompt: string): Promise<string | undefined>;
  /** Has Ctrl-C call a listener instead of ending the command, until it is taken away with undefined. */
  onInterrupt(listener: (() => void) | undefined): void;
  /** Opens the door with the given name, or the best one; for a GPU, the door to the CUDA addon. */
  door: PickDoor;
}

/** The environment of a command. Its output is made printable first: no text from a model or a server reaches a terminal unescaped. */
export interface Context extends Streams {
  /** Writes over the line on standard error that the cursor is in. */
  rewrite(line: string): void;
}

/** One flag of a command. */
export interface Flag {
  name: string;
  type: "boolean" | "string" | "strings" | "integer" | "number" | "bytes";
  /** The placeholder for the value in the help. */
  value?: string;
  text: string;
  required?: boolean;
}

/** A command is one file under commands/ and one line in commands.ts. */
export interface Command {
  name: string;
  summary: string;
  /** The name of the positional arguments; one that ends in `...` takes one or more, one in brackets is optional. */
  positional?: string;
  flags: readonly Flag[];
  /** Writes for people unless `--json` is set, and resolves with what `--json` prints. */
  run(values: Values, context: Context): Promise<Record<string, unknown>>;
  /** Says from the printed object whether the command has succeeded. */
  failed?(output: Record<string, unknown>): boolean;
}

/** The flags of every command. */
export const commonFlags: readonly Flag[] = [
  { name: "json", type: "boolean", text: "print one JSON object" },
  { name: "help", type: "boolean", text: "show this help" },
];

/** The flags of every command that can name a Hub model; the token comes from the environment only. */
export const hubFlags: readonly Flag[] = [
  { name: "revision", type: "string", value: "NAME", text: "branch, tag or commit of a Hub model" },
  {
    name: "file",
    type: "string",
    value: "NAME",
    text: "the GGUF file of a Hub model: its name, or a pattern (*Q4_K_M*)",
  },
  {
    name: "vision",
    type: "string",
    value: "NAME",
    text: "the vision tower of a GGUF file (mmproj): a path, of a Hub model its name or a pattern, or none",
  },
  { name: "offline", type: "boolean", text: "take Hub models from the cache only" },
];

/** Options of a load as flags say them: no tower is `none` there. */
export function withVision<T extends Record<string, unknown>>(options: T): T {
  return options.vision === "none" ? { ...options, vision: false } : options;
}

/** How a command reaches the engine. */
export const bindingFlag: Flag = {
  name: "binding",
  type: "string",
  value: "NAME",
  text: "reach the native code through napi, ffi or what is best (auto)",
};

/** The flags of every command that loads a model. */
export const loadFlags: readonly Flag[] = [
  {
    name: "model",
    type: "string",
    value: "MODEL",
    text: "folder, GGUF file, or org/name on the hub (default: the embedded model)",
  },
  {
    name: "adapter",
    type: "strings",
    value: "ADAPTER",
    text: "a LoRA adapter to merge in: folder, or org/name on the hub; may be given more than once",
  },
  ...hubFlags,
  { name: "device", type: "string", value: "NAME", text: "cpu, cuda, cuda:N or auto" },
  ...engineFlags,
  bindingFlag,
];

/** The flags of every command that can shrink the cache. */
export const cacheFlags: readonly Flag[] = [
  { name: "method", type: "string", value: "NAME", text: "make the cache small; `prefixkv methods` lists the methods" },
  { name: "keep", type: "string", value: "SIZE", text: "how much stays: a share (0.5), 256tokens per layer, or 64MiB" },
  { name: "set", type: "strings", value: "NAME=VALUE", text: "an option of the method; may be given more than once" },
  {
    name: "calibration",
    type: "string",
    value: "FILE",
    text: "sizes per layer: a file, or a name such as llava-1.5-7b",
  },
  {
    name: "stage",
    type: "strings",
    value: "NAME[,OPTION=VALUE]",
    text: "what goes behind the method, e.g. merge; may be given more than once",
  },
  { name: "fit", type: "string", value: "FILE", text: "instead of a method: what `prefixkv fit` has written" },
];
