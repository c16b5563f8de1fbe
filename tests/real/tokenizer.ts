// tokenizer.json and tokenizer_config.json of a byte-level BPE vocabulary in a GGUF file.
import type { GgufValue } from "./gguf.ts";

type Metadata = ReadonlyMap<string, GgufValue>;

/** The kind of a token that is never split, in GGUF. */
const CONTROL = 3;

function list<Kind extends string | number>(metadata: Metadata, key: string): Kind[] {
  const value = metadata.get(`tokenizer.ggml.${key}`);
  if (!Array.isArray(value)) throw new Error(`the file does not say tokenizer.ggml.${key}`);
  return value as Kind[];
}

function specials(metadata: Metadata): { id: number; content: string }[] {
  const kinds = list<number>(metadata, "token_type");
  return list<string>(metadata, "tokens")
    .map((content, id) => ({ id, content }))
    .filter(({ id }) => kinds[id] === CONTROL);
}

const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };

export function tokenizer(metadata: Metadata): object {
  const kind = [metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")].join("/");
  if (kind !== "gpt2/smollm") throw new Error(`the tokenizer is ${kind}; only gpt2/smollm is known`);
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specials(metadata).map((token) => ({ ...token, ...flags })),
    normalizer: null,
    // llama.cpp's name `smollm` is GPT-2's split after every digit has become a word of its own.
    pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel] },
    post_processor: null,
    decoder: { ...byteLevel, add_prefix_space: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(list<string>(metadata, "tokens").map((token, id) => [token, id])),
      merges: list<string>(metadata, "merges").map((pair) => pair.split(" ")),
    },
  };
}

export function tokenizerConfig(metadata: Metadata): object {
  const tokens = list<string>(metadata, "tokens");
  const named = (key: string) => tokens[Number(metadata.get(`tokenizer.ggml.${key}_token_id`))];
  return {
    add_prefix_space: false,
    added_tokens_decoder: Object.fromEntries(specials(metadata).map(({ id, content }) => [id, { content, ...flags }])),
    bos_token: named("bos"),
    chat_template: metadata.get("tokenizer.chat_template"),
    clean_up_tokenization_spaces: false,
    eos_token: named("eos"),
    model_max_length: metadata.get("llama.context_length"),
    pad_token: named("padding"),
    tokenizer_class: "PreTrainedTokenizerFast",
    unk_token: named("unknown"),
  };
}
