import type { Chat } from "../../chat.ts";
import { AbortError, PrefixKvError } from "../../errors.ts";
import { formatBytes, formatTime } from "../../format.ts";
import { generationFlags } from "../../generated/flags.ts";
import type { GenerationResult } from "../../generated/wire.ts";
import { type ImageInput, image } from "../../media.ts";
import type { Model } from "../../model.ts";
import type { ChatOptions } from "../../options/requests.ts";
import { cacheOption } from "../cache_flags.ts";
import { type Command, type Context, cacheFlags, loadFlags } from "../command.ts";
import { named } from "../images.ts";
import { withModel } from "../loading.ts";

const help = `/image PATH  shows a picture with the next message
/new         begins another conversation
/exit        leaves; so does the end of the input, and Ctrl-C where nothing is being answered
`;

/** A turn as `--json` prints it. */
interface Turn {
  user: string;
  images: string[];
  text: string;
  finish: GenerationResult["finish"];
}

/** Answers line by line, and remembers. */
export const chat: Command = {
  name: "chat",
  summary: "talk with a model about pictures; /help says how",
  positional: "[IMAGE...]",
  flags: [...generationFlags, ...cacheFlags, ...loadFlags],
  async run(values, context) {
    const cache = cacheOption(values);
    const options: ChatOptions = {
      ...values.options(generationFlags.map(({ name }) => name)),
      ...(cache !== undefined && { cache }),
    };
    return withModel(values, context, async (model) => {
      const talk = new Talk(model, options, context, values.has("json"));
      for (const path of values.positionals) await talk.show(path);
      await talk.run();
      return { model: model.info.source, turns: talk.turns };
    });
  },
};

class Talk {
  /** Those of the conversation that goes on. */
  turns: Turn[] = [];
  readonly #model: Model;
  readonly #options: ChatOptions;
  readonly #context: Context;
  readonly #quiet: boolean;
  #chat: Chat;
  #pictures: ImageInput[] = [];

  constructor(model: Model, options: ChatOptions, context: Context, quiet: boolean) {
    this.#model = model;
    this.#options = options;
    this.#context = context;
    this.#quiet = quiet;
    this.#chat = model.chat(options);
  }

  /** Adds a picture to the next message. It is read at once, so that a wrong path is heard of before the question. */
  async show(path: string): Promise<void> {
    const picture = image(path, named);
    await picture.bytes(this.#context.signal);
    this.#pictures.push(picture);
  }

  async run(): Promise<void> {
    for (;;) {
      const line = (await this.#context.ask("> "))?.trim();
      if (line === undefined || line === "/exit" || line === "/quit") break;
      try {
        await this.#obey(line);
      } catch (error) {
        // The conversation stands as before the turn.
        if (!(error instanceof PrefixKvError)) throw error;
        this.#context.err(`error[${error.code}]: ${error.message}\n`);
      }
      if (this.#context.signal.aborted) break;
    }
    await this.#chat.dispose();
  }

  async #obey(line: string): Promise<void> {
    const [, command, rest = ""] = /^\/(\w+)(?:\s+(.*))?$/.exec(line) ?? [];
    if (line === "") return;
    if (command === undefined) return this.#answer(line);
    if (command === "image" && rest !== "") return this.show(rest.replace(/^(["'])(.*)\1$/, "$2"));
    if (command === "new") {
      await this.#chat.dispose();
      this.#chat = this.#model.chat(this.#options);
      [this.turns, this.#pictures] = [[], []];
      return;
    }
    this.#context.err(help);
  }

  async #answer(user: string): Promise<void> {
    const pictures = this.#pictures;
    this.#pictures = [];
    const control = new AbortController();
    const stop = (): void => control.abort();
    this.#context.onInterrupt(stop);
    this.#context.signal.addEventListener("abort", stop, { once: true });
    try {
      const turn = this.#chat.send([...pictures, user], { signal: control.signal });
      for await (const { text } of turn) if (!this.#quiet) this.#context.out(text);
      const { text, finish, timings, memory } = await turn;
      this.turns.push({ user, images: pictures.map(({ name }) => name), text, finish });
      const first = formatTime(timings.firstToken);
      this.#context.err(`\n[first token ${first}, cache ${formatBytes(memory.resident)}]\n`);
    } catch (error) {
      if (!(error instanceof AbortError)) throw error;
      if (error.partial !== "") {
        this.turns.push({ user, images: pictures.map(({ name }) => name), text: error.partial, finish: "aborted" });
      }
      this.#context.err("\n[ended]\n");
    } finally {
      this.#context.onInterrupt(undefined);
      this.#context.signal.removeEventListener("abort", stop);
    }
  }
}
