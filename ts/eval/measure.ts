import { BudgetError } from "../errors.ts";
import type { GenerationResult, Keep, Kept, KeptSpan, Modality, Score } from "../generated/wire.ts";
import type { Model } from "../model.ts";
import type { CrossFit } from "./cross_fit.ts";
import { describes } from "./data/scenes.ts";
import type { Prepared } from "./methods.ts";
import { agreement, effectiveBits, entries } from "./metrics.ts";
import type { CellKey, Measured, QualityRecord, RunRecord, TimingRecord } from "./records.ts";
import { rougeL } from "./rouge.ts";
import { type EvalSample, promptOf } from "./samples.ts";
import { accuracyOf } from "./vqa.ts";

/** The full cache's answer to a sample. */
export interface Reference {
  text: string;
  tokens: readonly number[];
}

/** The outcome of a sample with a method at a size. */
export interface Outcome {
  quality: QualityRecord;
  timing: Omit<TimingRecord, "wallMs">;
  /** The tokens of the generated text. */
  tokens?: number[];
}

/** Runs one sample with one method at one size. */
export class Measurer {
  readonly #model: Model;
  readonly #run: RunRecord;
  readonly #fits: CrossFit;
  readonly #signal: AbortSignal | undefined;

  constructor(model: Model, run: RunRecord, fits: CrossFit, signal: AbortSignal | undefined) {
    this.#model = model;
    this.#run = run;
    this.#fits = fits;
    this.#signal = signal;
  }

  /** `reference` is missing for the full cache itself, which is its own. */
  async measure(
    { method, keep }: { method: Prepared; keep: number },
    sample: EvalSample,
    reference?: Reference,
  ): Promise<Outcome> {
    const key: CellKey = { method: method.id, keep, sample: sample.id };
    const found = this.#fits.of(method, keep, sample.id);
    if ("least" in found) return refused(key, "budget", found.least);
    const cache = method.at(keep, this.#run.seed, sample.id, found.calibration);
    const signal = this.#signal && { signal: this.#signal };
    const compare = this.#run.kl && method.id !== "full";
    const { answer } = sample;
    try {
      const asked = {
        ...promptOf(sample),
        answer,
        cache,
        kept: true as const,
        ...(compare && { kl: true }),
        ...signal,
      };
      const scored = await this.#model.score(asked);
      const generated = this.#run.generate
        ? await this.#model.generate({ ...promptOf(sample), cache, ...signal, maxTokens: this.#most(reference) })
        : undefined;
      return {
        quality: this.#quality(key, sample, scored, generated, reference),
        timing: timing(key, scored, generated),
        ...(generated && { tokens: generated.tokens }),
      };
    } catch (error) {
      if (!(error instanceof BudgetError)) throw error;
      return refused(key, error.code, error.least);
    }
  }

  #most(reference: Reference | undefined): number {
    const { maxTokens, beyond } = this.#run.generate || { maxTokens: 0, beyond: 0 };
    return reference === undefined ? maxTokens : Math.min(maxTokens, reference.tokens.length + beyond);
  }

  #quality(
    key: CellKey,
    sample: EvalSample,
    scored: Score & { kept: Kept[][]; spans: KeptSpan[] },
    generated: GenerationResult | undefined,
    reference: Reference | undefined,
  ): Measured {
    const { layers, kvHeads, kvBytesPerToken } = this.#model.info;
    const { memory, usage, kept, logprobs } = scored;
    const nll = -logprobs.reduce((sum, logprob) => sum + logprob, 0);
    const seen = memory.full / kvBytesPerToken;
    // Layers that read another's entries hold none.
    const holding = layers - memory.keptPerLayer.filter((count) => count === 0).length;
    const kl = key.method === "full" ? 0 : mean(scored.kl ?? []);
    return {
      ...key,
      ...(generated && texts(sample, generated, reference ?? generated)),
      nll: short(nll),
      answerTokens: logprobs.length,
      ppl: short(Math.exp(nll / logprobs.length)),
      ...(this.#run.kl && { kl: short(kl) }),
      keptPerLayer: memory.keptPerLayer,
      keptShareAfterPrompt: short(entries(kept, kvHeads) / (layers * usage.promptTokens)),
      keptShareAtEnd: short(memory.keptPerLayer.reduce((sum, count) => sum + count, 0) / (holding * seen)),
      ...keptOf(scored.spans),
      effectiveBits: short(effectiveBits(memory, this.#model.info)),
      payloadBytes: memory.payload,
      residentBytes: memory.resident,
      peakBytes: memory.peak,
      fullBytes: memory.full,
    };
  }
}

/** How much is left of the text, of the images and of the answer, each where there is any. */
function keptOf(spans: readonly KeptSpan[]): Pick<Measured, "keptOfText" | "keptOfImages" | "keptOfAnswer"> {
  const of = (type: Modality["type"]): number | undefined => {
    const own = spans.filter(({ modality }) => modality.type === type);
    const positions = own.reduce((sum, { len }) => sum + len, 0);
    return positions === 0 ? undefined : short(own.reduce((sum, { len, kept }) => sum + len * kept, 0) / positions);
  };
  const [text, images, answer] = [of("text"), of("image"), of("generated")];
  return {
    ...(text !== undefined && { keptOfText: text }),
    ...(images !== undefined && { keptOfImages: images }),
    ...(answer !== undefined && { keptOfAnswer: answer }),
  };
}

/** The outcome of a size too small for the entries that the method protects; it took no time. */
function refused(key: CellKey, code: string, least: Keep): Outcome {
  const none = { imageMs: 0, visionMs: 0, prefillMs: 0, decodeMs: 0, firstTokenMs: 0, tokensPerSecond: 0 };
  return { quality: { ...key, refused: { code, least } }, timing: { ...key, ...none, engineMs: 0 } };
}

function texts(sample: EvalSample, { text, tokens }: GenerationResult, reference: Reference): Partial<Measured> {
  const { answers, objects } = sample;
  return {
    text,
    textTokens: tokens.length,
    rougeL: short(rougeL(text, reference.text)),
    agreement: short(agreement(tokens, reference.tokens)),
    ...(answers && { correct: short(accuracyOf(text, answers)) }),
    ...(objects && {
      right: objects.filter((object) => describes(text, object)).length,
      objects: objects.length,
    }),
  };
}

function timing(key: CellKey, scored: Score, generated: GenerationResult | undefined): Omit<TimingRecord, "wallMs"> {
  const { images, vision, prefill, decode, firstToken } = (generated ?? scored).timings;
  const steps = (generated?.tokens.length ?? scored.tokens.length) - 1;
  return {
    ...key,
    imageMs: round(images),
    visionMs: round(vision),
    prefillMs: round(prefill),
    decodeMs: round(decode),
    firstTokenMs: round(firstToken),
    tokensPerSecond: steps > 0 && decode > 0 ? round((1000 * steps) / decode) : 0,
    engineMs: round(scored.timings.total + (generated?.timings.total ?? 0)),
  };
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

/** Nine digits: more than runs on different machines agree on. */
export function short(value: number): number {
  return Number(value.toPrecision(9));
}

/** Microseconds. */
export function round(milliseconds: number): number {
  return Math.round(1000 * milliseconds) / 1000;
}
