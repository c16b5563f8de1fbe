// Methods in TypeScript through every door: what they are shown, what they answer, and what becomes of wrong answers.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { CustomView, LanePlan } from "../../ts/custom_plan.ts";
import { custom, type Model, PlanError } from "../../ts/index.ts";
import { doors, live, loadThrough } from "./doors.ts";

const prompt = "USER: There is a green star at the top left and a blue ring. What is there? ASSISTANT:";
const short = { prompt, maxTokens: 8 };

for (const door of doors) {
  let model: Model;
  before(async () => {
    model = await loadThrough(door);
  });
  after(() => model.dispose());

  /** The error of a generation with this plan. */
  const failure = async (plan: (view: CustomView) => unknown): Promise<PlanError> => {
    const cache = custom({ keep: 0.5, plan: plan as () => LanePlan[] });
    const error = await model.generate({ ...short, cache }).then(
      () => assert.fail("it does not fail"),
      (error: unknown) => error,
    );
    assert.ok(error instanceof PlanError, String(error));
    assert.equal(error.code, "plan");
    return error;
  };

  test(`${door}: a plan sees the lanes and decides what stays, sync or async`, async () => {
    const views: CustomView[] = [];
    const every = async (view: CustomView): Promise<LanePlan[]> => {
      views.push(view);
      return view.lanes.map(({ positions }) => positions.map((_, at) => at).filter((at) => at % 2 === 0));
    };
    const needs = { lanes: "head", sums: "columns", keys: true, values: true, queries: 2 } as const;
    const { memory } = await model.generate({ ...short, cache: custom({ needs, plan: every }) });
    assert.equal(views.length, 1, "one round trip per moment");
    const [view] = views;
    const [lane] = view?.lanes ?? [];
    assert.ok(view && lane);
    assert.deepEqual([view.moment, view.step, view.most, lane.layer, lane.heads], ["prompt", 0, null, 0, [0, 1]]);
    assert.deepEqual([...lane.positions], [...Array(view.positions).keys()]);
    assert.ok(lane.sums.length === view.positions && lane.sums.every((sum) => sum >= 0));
    assert.equal(lane.keys.length, lane.values.length);
    assert.equal(lane.queries.length, (2 * lane.keys.length) / view.positions);
    assert.ok((memory.keptPerLayer[0] ?? 0) < view.positions / 2 + 9);
    const sync = await model.generate({ ...short, cache: custom({ plan: ({ lanes }) => lanes.map(() => null) }) });
    assert.deepEqual(sync.tokens, (await model.generate(short)).tokens, "nothing was freed");
  });

  test(`${door}: a plan may come every few steps, and merge`, async () => {
    const steps: number[] = [];
    const plan = (view: CustomView): LanePlan[] => {
      steps.push(view.step);
      return view.lanes.map(({ positions }) => {
        const keep = [...positions.keys()].slice(1);
        return { keep, merge: [{ from: 0, into: 1, weight: 0.5 }] };
      });
    };
    const cache = custom({ needs: { moments: ["step"], every: 3 }, plan });
    const { memory, usage } = await model.generate({ prompt, maxTokens: 8, ignoreEos: true, cache });
    assert.deepEqual(steps, [3, 6]);
    assert.equal(memory.keptPerLayer[0], usage.promptTokens + 7 - 2);
  });

  test(`${door}: wrong answers are typed errors, and the model goes on`, async () => {
    const held = (await live()).cacheBytes;
    const one = (plan: unknown) => (view: CustomView) => view.lanes.map(() => plan);
    const wrong: [(view: CustomView) => unknown, RegExp][] = [
      [one([2, 1]), /must rise/],
      [one([1, 1]), /must rise/],
      [one([0, 1e6]), /no entry 1000000/],
      [one([]), /at least one/],
      [one(null), /`keep` allows/],
      [one([0.5]), /0\.5, which is no whole number/],
      [one([-1]), /-1, which is no whole number/],
      [one(["1"]), /no whole number/],
      [one(7), /lane 0 must be null/],
      [one({ keep: [0], merge: [{ from: 1, into: 0, weight: Number.NaN }] }), /weight NaN/],
      [one({ keep: [0], merge: [{ from: 0, into: 0 }] }), /must go/],
      [() => [[0]], /1 lanes/],
      [() => undefined, /must be an array/],
      [() => "no", /must be an array/],
    ];
    for (const [plan, message] of wrong) assert.match((await failure(plan)).message, message);
    const cause = new Error("my own");
    const thrown = await failure(() => {
      throw cause;
    });
    assert.deepEqual([thrown.cause, /my own/.test(thrown.message)], [cause, true]);
    assert.equal((await failure(() => Promise.reject(cause))).cause, cause);
    assert.ok((await model.generate(short)).tokens.length > 0);
    // The count is the process's: what other files have left in it may only go in the meantime.
    const deadline = Date.now() + 5000;
    while ((await live()).cacheBytes > held && Date.now() < deadline) await sleep(20);
    assert.ok((await live()).cacheBytes <= held, "what failed holds nothing");
  });

  test(`${door}: while a plan is thought about, others are answered, and an abort ends it`, async () => {
    const controller = new AbortController();
    let shown = (): void => {};
    const asked = new Promise<void>((resolve) => {
      shown = resolve;
    });
    const never = (): Promise<LanePlan[]> => {
      shown();
      return new Promise(() => {});
    };
    const parked = model.generate({ ...short, cache: custom({ plan: never }), signal: controller.signal });
    const aborted = assert.rejects(parked, { name: "AbortError" });
    await asked;
    assert.ok((await model.tokenize(prompt)).length > 0);
    controller.abort();
    await aborted;
    assert.ok((await model.generate(short)).tokens.length > 0);
  });

  test(`${door}: chats, scores and traces take plans, and a chat outlives a wrong one`, async () => {
    let wrong = false;
    const plan = ({ lanes }: CustomView): LanePlan[] =>
      lanes.map(({ positions }) => (wrong ? [9, 3] : [...positions.keys()].slice(2)));
    const cache = custom({ plan });
    const chat = model.chat({ cache, maxTokens: 4 });
    assert.ok((await chat.send("What is there?")).memory.keptPerLayer[0]);
    wrong = true;
    await assert.rejects(chat.send("What else?"), PlanError);
    wrong = false;
    assert.ok((await chat.send("What else?")).usage.completionTokens > 0);
    assert.equal(chat.messages.length, 4);
    await chat.dispose();
    const { kept } = await model.score({ prompt, answer: " A star.", cache, kept: true });
    assert.equal(kept?.[0]?.[0]?.positions[0], 2);
    const trace = await model.trace({ ...short, cache });
    assert.equal(trace.plans.length, 1);
    assert.deepEqual(trace.plans[0]?.lanes?.[0]?.keep?.[0], 2);
  });
}
