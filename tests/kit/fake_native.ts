// The contract in memory, for tests that need no engine. One queue of events per ticket; a request is answered token by token.
import type {
  ChannelsLayer,
  CheckRequest,
  DeviceCheck,
  EngineRequest,
  Kept,
  KeptSpan,
  LayerDirections,
  LayerDistance,
  LoadRequest,
  Memory,
  ModelInfo,
  Timings,
  Trace,
  Usage,
  WireError,
  WireEvent,
} from "../../ts/generated/wire.ts";
import type { Native, NativeEngine, NativeTicket } from "../../ts/native/contract.ts";

export const info: ModelInfo = {
  architecture: "LlavaForConditionalGeneration",
  source: "/models/fake",
  adapters: [],
  fingerprint: "f00d",
  parameters: 5_520_000,
  weights: "f32",
  weightFormats: { f32: 71 },
  weightBytes: 22_000_000,
  visionBytes: 3_000_000,
  device: "cpu",
  threads: 1,
  rotatedValues: false,
  layers: 10,
  hiddenSize: 192,
  heads: 6,
  kvHeads: 6,
  headDim: 32,
  vocabSize: 768,
  maxPositions: 2048,
  kvBytesPerToken: 15_360,
  image: { tokens: 144, size: 168, patch: 14, picture: null },
};
/** As many tiles as hundreds of pixels. */
function imageOf({ width }: { width: number }): NonNullable<ModelInfo["image"]> {
  const piece = { kind: { type: "base" as const }, rows: 2, columns: 2 };
  const pieces = Array.from({ length: Math.ceil(width / 100) }, () => ({ piece, tokens: 4 }));
  return { tokens: null, size: null, patch: 14, picture: { tokens: 4 * pieces.length, marks: 9, pieces } };
}

export const usage: Usage = { promptTokens: 160, cachedTokens: 0, imageTokens: 144, completionTokens: 3 };
export const timings: Timings = { queued: 0, images: 1, vision: 2, prefill: 3, decode: 4, firstToken: 6, total: 10 };
export const memory: Memory = {
  full: 2_000_000,
  payload: 2_000_000,
  scales: 0,
  window: 0,
  effectiveBits: 32,
  metadata: 1000,
  dead: 0,
  resident: 2_001_000,
  shared: 0,
  peak: 2_002_000,
  keptPerLayer: [163, 163],
};

/** Two layers over a picture of 12 x 12 patches: the first keeps the even positions, the second the first hundred. */
const importance = Array.from({ length: 160 }, (_, at) => 1 / (1 + at));
const cumulative = { from: 0, shares: Array.from({ length: 161 }, (_, kept) => Math.sqrt(kept / 160)) };
const steps = [160, 161, 162].map((positions) => {
  const [resident, full] = [positions * 10_000, positions * 15_360];
  return { positions, resident, payload: resident, full, kept: 90 };
});
export const trace: Trace = {
  text: "There is a star.",
  tokens: [0, 1, 2],
  finish: "eos",
  usage,
  timings,
  memory,
  score: "columns",
  ranking: "attention from all queries of the prompt",
  mass: true,
  threshold: 0.75,
  spans: [
    { modality: { type: "text" }, start: 0, len: 5 },
    {
      modality: { type: "image", index: 0, piece: { kind: { type: "base" }, rows: 12, columns: 12 } },
      start: 5,
      len: 144,
    },
    { modality: { type: "text" }, start: 149, len: 11 },
    { modality: { type: "generated" }, start: 160, len: 2 },
  ],
  images: [
    {
      index: 0,
      source: 0,
      width: 168,
      height: 168,
      rows: 12,
      columns: 12,
      tiles: 1,
      cells: Array.from({ length: 144 }, (_, cell) => 5 + cell),
      area: { x: 0, y: 0, width: 168, height: 168 },
    },
  ],
  layers: [2, 1].map((step, source) => ({
    source,
    importance,
    cumulative,
    retained: 0.75,
    kept: [{ heads: [0, 6], positions: Array.from({ length: step === 2 ? 80 : 100 }, (_, at) => at * step) }],
  })),
  steps,
  plans: [],
};

export class FakeTicket implements NativeTicket {
  cancelled = false;
  onCancel: () => void = () => {};
  #queue: WireEvent[] = [];
  #ended = false;
  #wake: (() => void) | undefined;
  #busy = false;

  push(...events: WireEvent[]): void {
    this.#queue.push(...events);
    this.#wake?.();
  }

  end(...events: WireEvent[]): void {
    if (this.#ended) return;
    this.#ended = true;
    this.push(...events);
  }

  fail(error: WireError): void {
    this.end({ type: "error", error });
  }

  async next(): Promise<string | null> {
    if (this.#busy) throw new Error("one call at a time");
    this.#busy = true;
    while (this.#queue.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#busy = false;
    const events = this.#queue.splice(0);
    return events.length > 0 ? JSON.stringify(events) : null;
  }

  cancel(): void {
    if (this.cancelled) return;
    this.cancelled = true;
    this.onCancel();
  }
}

export const deviceCheck: DeviceCheck = {
  device: "cuda:0",
  name: "a GPU",
  software: ["driver for CUDA 13.0", "cuBLAS 13.0.2"],
  processors: 132,
  memory: { free: 1e9, total: 2e9 },
  passed: false,
  kernels: [{ kernel: "product f16", cases: 3, worst: null, tolerance: 2e-5, failed: "Case { n: 1 }: no number" }],
  ceilings: null,
};

/** Requests to the fake, and how it shall behave. */
export class FakeNative implements Native {
  loads: LoadRequest[] = [];
  checks: CheckRequest[] = [];
  requests: { request: EngineRequest; images: Uint8Array[] }[] = [];
  tickets: FakeTicket[] = [];
  closes = 0;
  sessions = 0;
  profiles = 0;
  trials = 0;
  /** The answers of `distances`, and of `similarity` in turn. */
  pairs: LayerDistance[] = [];
  similarities: number[] = [];
  /** The answer of `channels`. */
  channels: ChannelsLayer[] = [];
  /** The answer of `heads`. */
  heads: number[][] = [];
  /** The answer of `directions`. */
  directions: LayerDirections[] = [];
  memory: Memory = memory;
  /** The least size that a profile takes. */
  leastKeep = 0;
  devices: string[] = ["cpu"];
  /** The pieces of every answer, one token each. */
  pieces: string[] = ["There", " is", " a star."];
  /** Keeps every answer open after this many pieces. */
  stallAfter: number = Number.POSITIVE_INFINITY;
  loadError: WireError | undefined;
  submitError: unknown;
  requestError: WireError | undefined;

  about(): string {
    return JSON.stringify({
      version: "0.1.0",
      errorCodes: [],
      architectures: [info.architecture],
      devices: this.devices,
      noGpu: this.devices.length > 1 ? null : "no NVIDIA driver",
      cpu: ["avx2"],
      threads: 2,
      live: {
        models: 0,
        sessions: 0,
        requests: 0,
        cacheBytes: 0,
        layersRun: 0,
        rowsRun: 0,
        rowsShared: 0,
        pairsRun: 0,
      },
    });
  }

  inspect(json: string): NativeTicket {
    const { source, picture } = JSON.parse(json) as { source: string; picture?: { width: number; height: number } };
    const ticket = new FakeTicket();
    if (this.loadError) ticket.fail(this.loadError);
    else ticket.end({ type: "inspected", info: { ...info, source, image: picture ? imageOf(picture) : info.image } });
    return ticket;
  }

  checkDevice(json: string): NativeTicket {
    this.checks.push(JSON.parse(json) as CheckRequest);
    const ticket = new FakeTicket();
    ticket.push({ type: "progress", stage: "kernels", done: 1, total: 2 });
    if (this.loadError) ticket.fail(this.loadError);
    else if (!this.stallAfter) return ticket;
    else ticket.end({ type: "checked", report: deviceCheck });
    return ticket;
  }

  open(json: string): NativeEngine {
    const request = JSON.parse(json) as LoadRequest;
    this.loads.push(request);
    const loading = new FakeTicket();
    if (this.loadError) loading.fail(this.loadError);
    else {
      loading.push({ type: "progress", stage: "weights", done: 1, total: 2 });
      loading.end({ type: "loaded", info: { ...info, source: request.source } });
    }
    return {
      loading: () => loading,
      submit: (request, images) => this.#submit(JSON.parse(request) as EngineRequest, images),
      close: () => {
        this.closes += 1;
        for (const ticket of this.tickets) ticket.fail({ code: "disposed", message: "disposed", details: {} });
        const ticket = new FakeTicket();
        ticket.end({ type: "closed" });
        return ticket;
      },
    };
  }

  #submit(request: EngineRequest, images: Uint8Array[]): NativeTicket {
    if (this.submitError) throw this.submitError;
    this.requests.push({ request, images });
    const ticket = new FakeTicket();
    this.tickets.push(ticket);
    if (this.requestError) ticket.fail(this.requestError);
    else if (request.op === "generate" || request.op === "turn") this.#answer(ticket, request.logprobs);
    else if (request.op === "score") {
      const kept: Kept[][] = [[{ heads: [0, 6], positions: [0, 2] }], [{ heads: [0, 6], positions: [0, 1] }]];
      const spans: KeptSpan[] = [
        { modality: { type: "text" }, start: 0, len: 2, kept: 0.5 },
        {
          modality: { type: "image", index: 0, piece: { kind: { type: "base" }, rows: 2, columns: 2 } },
          start: 2,
          len: 4,
          kept: 0.25,
        },
        { modality: { type: "text" }, start: 6, len: 6, kept: 0.75 },
      ];
      const score = { tokens: [5, 6], logprobs: [-0.5, -1.5], ppl: Math.E, usage, timings, memory: this.memory };
      ticket.end({
        type: "scored",
        ...score,
        ...(request.kept && { kept, spans }),
        ...(request.kl && { kl: [0, 0.5] }),
      });
    } else if (request.op === "profile") this.#profile(ticket, request.keeps);
    else if (request.op === "distances") ticket.end({ type: "distances", pairs: this.pairs, usage, timings });
    else if (request.op === "channels") ticket.end({ type: "channels", layers: this.channels, usage, timings });
    else if (request.op === "heads") {
      ticket.end({ type: "heads", scores: this.heads, samples: 1, positions: 8, usage, timings });
    } else if (request.op === "directions") {
      ticket.end({ type: "directions", layers: this.directions, rank: 8, positions: 100, usage, timings });
    } else if (request.op === "similarity") {
      const similarity = this.similarities[this.trials] ?? 0.9;
      this.trials += 1;
      ticket.end({ type: "similarity", similarity, usage, timings });
    } else if (request.op === "sensitivity") {
      // Each bit halves the error, and the second half of the layers is off by four times as much.
      const errors = request.pairs.map(([keys = 0, values = 0]) => 2 ** -keys + 2 ** -values);
      const layers = Array.from({ length: info.layers }, (_, layer) =>
        errors.map((error) => (layer < info.layers / 2 ? error : 4 * error)),
      );
      ticket.end({ type: "sensitivity", layers, usage, timings });
    } else if (request.op === "open-session" || request.op === "fork-session") {
      this.sessions += 1;
      ticket.end({ type: "session", session: `session ${this.sessions}` });
    } else if (request.op === "close-session") {
      ticket.end({ type: "session", session: request.session });
    } else if (request.op === "tokenize")
      ticket.end({ type: "tokens", tokens: [...request.text].map((c) => c.charCodeAt(0)) });
    else if (request.op === "image-tokens") {
      const piece = { kind: { type: "base" as const }, rows: 12, columns: 12 };
      ticket.end({ type: "pieces", tokens: 144, marks: 0, pieces: [{ piece, tokens: 144 }] });
    } else if (request.op === "detokenize") ticket.end({ type: "text", text: String.fromCharCode(...request.tokens) });
    else ticket.end({ type: "traced", ...trace });
    return ticket;
  }

  #profile(ticket: FakeTicket, keeps: readonly number[]): void {
    this.profiles += 1;
    const least = this.leastKeep;
    if (keeps.some((keep) => keep < least)) {
      ticket.fail({ code: "budget", message: "too small", details: { asked: keeps[0], least } });
      return;
    }
    // The samples differ in a known way: by how many came before.
    const change = 0.01 * (this.profiles - 1);
    ticket.end({ type: "profiled", retained: keeps.map((keep) => [keep + change, keep - change]), usage, timings });
  }

  #answer(ticket: FakeTicket, most?: number): void {
    const sent: string[] = [];
    const done = (finish: "eos" | "aborted"): WireEvent => ({
      type: "done",
      text: sent.join(""),
      tokens: sent.map((_, index) => index),
      finish,
      usage,
      timings,
      memory: this.memory,
    });
    ticket.onCancel = () => {
      if (sent.length > 0) ticket.end(done("aborted"));
      else ticket.fail({ code: "aborted", message: "the request was aborted", details: {} });
    };
    ticket.push({ type: "prompt", usage });
    const step = (): void => {
      const piece = this.pieces[sent.length];
      if (ticket.cancelled || sent.length >= this.stallAfter) return;
      if (piece === undefined) {
        ticket.end(done("eos"));
        return;
      }
      const bytes = [...Buffer.from(piece)];
      const top = Array.from({ length: most ?? 0 }, (_, at) => ({ id: at, logprob: -0.5 - at, bytes }));
      const logprobs = most === undefined ? {} : { logprobs: { logprob: -0.5, bytes, top } };
      ticket.push({ type: "token", id: sent.length, text: piece, ...logprobs });
      sent.push(piece);
      setTimeout(step, 1);
    };
    step();
  }
}
