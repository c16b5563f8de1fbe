import type { GenerationResult } from "../generated/wire.ts";
import type { Turns } from "./turns.ts";

const seconds = [0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 40.96, 163.84, 2560];
const tokens = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000];

class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;
  #count = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  add(value: number): void {
    this.#sum += value;
    this.#count += 1;
    for (const [index, bound] of this.#bounds.entries()) {
      if (value <= bound) this.#counts[index] = (this.#counts[index] ?? 0) + 1;
    }
  }

  lines(name: string, label: string): string[] {
    const buckets = this.#bounds.map((bound, index) => `${name}_bucket{${label},le="${bound}"} ${this.#counts[index]}`);
    const whole = `${name}_bucket{${label},le="+Inf"} ${this.#count}`;
    return [...buckets, whole, `${name}_sum{${label}} ${this.#sum}`, `${name}_count{${label}} ${this.#count}`];
  }
}

/** The counts of the handler, under vLLM's names where they mean the same. */
export class Metrics {
  readonly #turns: Turns;
  readonly #histograms = {
    "vllm:time_to_first_token_seconds": new Histogram(seconds),
    "vllm:e2e_request_latency_seconds": new Histogram(seconds),
    "vllm:request_queue_time_seconds": new Histogram(seconds),
    "vllm:request_prompt_tokens": new Histogram(tokens),
    "vllm:request_generation_tokens": new Histogram(tokens),
  };
  readonly #finished = new Map([
    ["stop", 0],
    ["length", 0],
  ]);
  #promptTokens = 0;
  #generatedTokens = 0;
  #cachedTokens = 0;
  #keptEntries = 0;
  #freedEntries = 0;
  readonly #kvBytes: number;
  #resident = 0;
  #full = 0;
  rejected = 0;
  disconnects = 0;
  stalled = 0;

  /** `kvBytes` is what one position takes in the full cache. */
  constructor(turns: Turns, kvBytes: number) {
    this.#turns = turns;
    this.#kvBytes = kvBytes;
  }

  /** A request's turn has come after so many milliseconds. */
  queued(time: number): void {
    this.#histograms["vllm:request_queue_time_seconds"].add(time / 1000);
  }

  /** A request's first token has come so many milliseconds after its arrival. */
  firstToken(time: number): void {
    this.#histograms["vllm:time_to_first_token_seconds"].add(time / 1000);
  }

  /** A choice has ended. */
  choice(result: GenerationResult): void {
    const reason = result.finish === "length" ? "length" : "stop";
    this.#finished.set(reason, (this.#finished.get(reason) ?? 0) + 1);
    const kept = result.memory.keptPerLayer.reduce((sum, entries) => sum + entries, 0);
    this.#keptEntries += kept;
    this.#freedEntries += Math.max(0, (result.memory.full / this.#kvBytes) * result.memory.keptPerLayer.length - kept);
    this.#cachedTokens += result.usage.cachedTokens;
    this.#resident += result.memory.resident;
    this.#full += result.memory.full;
    this.#promptTokens += result.usage.promptTokens;
    this.#generatedTokens += result.usage.completionTokens;
    this.#histograms["vllm:request_prompt_tokens"].add(result.usage.promptTokens);
    this.#histograms["vllm:request_generation_tokens"].add(result.usage.completionTokens);
  }

  /** A request has been answered, so many milliseconds after its arrival. */
  answered(time: number): void {
    this.#histograms["vllm:e2e_request_latency_seconds"].add(time / 1000);
  }

  /** All of it in Prometheus' text format. */
  text(model: string): string {
    const label = `model_name="${model.replace(/[\\"]/g, "\\$&").replaceAll("\n", "\\n")}"`;
    const lines: string[] = [];
    const one = (kind: string, name: string, values: [labels: string, value: number][]): void => {
      lines.push(`# TYPE ${name} ${kind}`, ...values.map(([labels, value]) => `${name}{${label}${labels}} ${value}`));
    };
    one("gauge", "vllm:num_requests_running", [["", this.#turns.running]]);
    one("gauge", "vllm:num_requests_waiting", [["", this.#turns.waiting]]);
    one("counter", "vllm:prompt_tokens_total", [["", this.#promptTokens]]);
    one("counter", "vllm:prefix_cache_queries_total", [["", this.#promptTokens]]);
    one("counter", "vllm:prefix_cache_hits_total", [["", this.#cachedTokens]]);
    one("counter", "vllm:generation_tokens_total", [["", this.#generatedTokens]]);
    const finished = [...this.#finished].map(([reason, count]): [string, number] => [
      `,finished_reason="${reason}"`,
      count,
    ]);
    one("counter", "vllm:request_success_total", finished);
    one("counter", "vllm:admission_rejections_total", [[',reason="queue_full"', this.rejected]]);
    for (const [name, histogram] of Object.entries(this.#histograms)) {
      lines.push(`# TYPE ${name} histogram`, ...histogram.lines(name, label));
    }
    one("counter", "prefixkv_finished_cache_bytes_total", [
      [',kind="resident"', this.#resident],
      [',kind="full"', this.#full],
    ]);
    one("counter", "prefixkv_finished_cache_entries_total", [
      [',kind="kept"', this.#keptEntries],
      [',kind="freed"', this.#freedEntries],
    ]);
    one("counter", "prefixkv_disconnects_total", [["", this.disconnects]]);
    one("counter", "prefixkv_stalled_streams_total", [["", this.stalled]]);
    return `${lines.join("\n")}\n`;
  }
}
