import { basename } from "node:path";
import { methods } from "../../generated/method_table.ts";
import type { Model } from "../../model.ts";
import { loopbackNames } from "../../openai/guard.ts";
import { openai } from "../../openai/handler.ts";
import type { OpenaiOptions } from "../../openai/options.ts";
import { keyVariable, readKeys } from "../../serve/keys.ts";
import { isLoopback, type Listening, listen } from "../../serve/listen.ts";
import { UsageError } from "../args.ts";
import { cacheOption } from "../cache_flags.ts";
import { type Command, type Context, cacheFlags, type Flag, loadFlags } from "../command.ts";
import { withModel } from "../loading.ts";
import type { Values } from "../values.ts";

/** Requests that are decoded together unless the flags say otherwise. */
const together = 4;

const placeFlags: readonly Flag[] = [
  { name: "port", type: "integer", value: "N", text: "the port (default: 8000; 0 is any free one)" },
  { name: "host", type: "string", value: "ADDRESS", text: "the address to listen at (default: 127.0.0.1)" },
  { name: "key-file", type: "string", value: "FILE", text: `keys, one per line; or give them in ${keyVariable}` },
  { name: "insecure", type: "boolean", text: "answer other machines without a key" },
  { name: "allow-host", type: "strings", value: "NAME", text: "a further name that the header `host` may have" },
  { name: "cors", type: "strings", value: "ORIGIN", text: "an origin whose web pages may ask" },
  { name: "no-page", type: "boolean", text: "serve no page at /" },
  { name: "drain", type: "number", value: "SECONDS", text: "time for running answers at the end (default: 30)" },
];

const answerFlags: readonly Flag[] = [
  { name: "id", type: "string", value: "NAME", text: "the model's name in requests (default: what it was loaded as)" },
  { name: "any-model", type: "boolean", text: "answer whatever model a request names" },
  { name: "strict", type: "boolean", text: "refuse request fields that are not known" },
  { name: "methods", type: "string", value: "NAMES", text: "methods that a request may ask for (default: all)" },
  { name: "temperature", type: "number", value: "X", text: "of requests that give none (default: 0)" },
];

const limitFlags: readonly Flag[] = [
  { name: "batch", type: "integer", value: "N", text: `requests decoded together (default: ${together})` },
  {
    name: "prefix-cache",
    type: "bytes",
    value: "SIZE",
    text: "keep this much of prompts' beginnings with pictures for later requests (default: none)",
  },
  { name: "queue", type: "integer", value: "N", text: "requests that wait before others are refused (default: 64)" },
  {
    name: "max-tokens",
    type: "integer",
    value: "N",
    text: "the most tokens of an answer (default: what the model has)",
  },
  { name: "choices", type: "integer", value: "N", text: "the most answers to one request (default: 8)" },
  { name: "images", type: "integer", value: "N", text: "the most pictures of a request (default: 8)" },
  { name: "image-host", type: "strings", value: "HOST", text: "a host whose https pictures may be fetched" },
  { name: "body", type: "bytes", value: "SIZE", text: "the most bytes of a request (default: 20MiB)" },
  { name: "answer-time", type: "number", value: "SECONDS", text: "the most time of an answer (default: 600)" },
];

/** Answers over HTTP until it is told to end. */
export const serve: Command = {
  name: "serve",
  summary: "answer OpenAI's clients over HTTP, many at once",
  flags: [...placeFlags, ...answerFlags, ...limitFlags, ...cacheFlags, ...loadFlags],
  async run(values, context) {
    const place = placeOf(values);
    const keys = await readKeys(process.env, values.text("key-file"), context.err);
    if (keys.length === 0 && !isLoopback(place.host) && !values.has("insecure")) {
      throw new UsageError(
        `--host ${place.host} lets other machines ask; give a key by ${keyVariable} or --key-file, or say --insecure`,
      );
    }
    const cache = cacheOption(values);
    const batch = values.number("batch") ?? together;
    return withModel(
      values,
      context,
      async (model) => {
        const id = values.text("id") ?? nameOf(model, values.text("model"));
        const options: OpenaiOptions = {
          ...{ id, keys, concurrency: batch, page: !values.has("no-page") },
          ...values.options(["any-model", "strict", "temperature", "queue", "max-tokens", "choices", "images"]),
          ...hostsOf(place.host, values),
          ...(cache !== undefined && { cache }),
          ...methodsOf(values),
          ...some("origins", values.has("cors") ? values.texts("cors") : undefined),
          ...some("imageHosts", values.has("image-host") ? values.texts("image-host") : undefined),
          ...some("bodyBytes", values.number("body")),
          ...some("answerTime", milliseconds(values.number("answer-time"))),
          ...some("drainTime", milliseconds(values.number("drain"))),
        };
        const listening = await listen(openai(model, options), place);
        say(listening, id, values, context);
        await ended(context.signal);
        context.err("letting the answers that run end; a second signal does not wait\n");
        await listening.close();
        return { model: model.info.source, id, address: listening.address };
      },
      { batch, ...some("prefixCache", values.number("prefix-cache")) },
    );
  },
};

function placeOf(values: Values): { host: string; port: number } {
  const port = values.number("port") ?? 8000;
  if (port < 0 || port > 65_535) throw new UsageError(`--port needs a number from 0 to 65535, not \`${port}\``);
  return { host: (values.text("host") ?? "127.0.0.1").replace(/^\[(.*)\]$/, "$1"), port };
}

/** A Hub model has its own name; of a path only the last part goes out. */
function nameOf(model: Model, asked: string | undefined): string {
  const hub = asked !== undefined && /^[\w.-]+\/[\w.-]+$/.test(asked) && !model.info.source.endsWith(asked);
  return hub ? asked : basename(model.info.source).replace(/\.gguf$/i, "");
}

/** A machine that listens to itself alone answers to its own names only. */
function hostsOf(host: string, values: Values): Pick<OpenaiOptions, "hosts"> {
  const more = values.texts("allow-host");
  if (!isLoopback(host)) return more.length === 0 ? {} : { hosts: [...loopbackNames, ...more] };
  return { hosts: [...loopbackNames, host, ...more] };
}

function methodsOf(values: Values): Pick<OpenaiOptions, "methods"> {
  const text = values.text("methods");
  if (text === undefined) return {};
  const names = text.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !methods.some((method) => method.name === name));
  if (unknown !== undefined) throw new UsageError(`--methods names \`${unknown}\`, which is no method`);
  return { methods: names };
}

function say({ address }: Listening, id: string, values: Values, { out, err }: Context): void {
  if (values.has("json")) err(`listening on ${address}\n`);
  else out(`listening on ${address}\n`);
  err(
    `model ${JSON.stringify(id)}; OpenAI's clients take ${address}/v1 as their base URL, browsers ${address}; Ctrl-C ends it\n`,
  );
}

/** Resolves at Ctrl-C or SIGTERM; from then on a SIGTERM does not wait. */
async function ended(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  process.once("SIGTERM", resolve);
  await promise;
  process.off("SIGTERM", resolve);
  process.once("SIGTERM", () => process.exit(143));
}

const milliseconds = (seconds: number | undefined): number | undefined =>
  seconds === undefined ? undefined : seconds * 1000;

function some<K extends string, V>(name: K, value: V | undefined): { [k in K]?: V } {
  return value === undefined ? {} : ({ [name]: value } as { [k in K]?: V });
}
