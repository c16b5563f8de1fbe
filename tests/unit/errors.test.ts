import assert from "node:assert/strict";
import { test } from "node:test";
import { abortError } from "../../ts/errors.ts";
import { errorClasses } from "../../ts/generated/errors.ts";
import * as api from "../../ts/index.ts";
import { errorFromThrown, errorFromWire } from "../../ts/native/errors.ts";

test("every code has a class of the public list, and there are at most ten direct ones", () => {
  const classes = new Set(Object.values(errorClasses));
  for (const Class of classes) assert.ok(Object.values(api).includes(Class as never), Class.name);
  const direct = [...classes].filter((Class) => Object.getPrototypeOf(Class) === api.PrefixKvError);
  assert.ok(direct.length <= 10);
});

test("a wire error becomes the class of its code with its details", () => {
  const details = { needed: 3000, available: 2048, imageTokens: 144 };
  const error = errorFromWire({ code: "context-overflow", message: "too long", details });
  assert.ok(error instanceof api.ContextOverflowError);
  assert.ok(error instanceof api.PrefixKvError);
  assert.ok(error instanceof Error);
  assert.equal(error.name, "ContextOverflowError");
  assert.equal(error.message, "too long");
  assert.deepEqual([error.needed, error.available, error.imageTokens], [3000, 2048, 144]);
});

test("a budget error has the asked and the least size, and is an option error", () => {
  const details = { asked: 0.01, least: 0.0213 };
  const error = errorFromWire({ code: "budget", message: "too small", details });
  assert.ok(error instanceof api.BudgetError && error instanceof api.OptionError);
  assert.deepEqual([error.asked, error.least], [0.01, 0.0213]);
  const absolute = errorFromWire({
    code: "budget",
    message: "",
    details: { asked: { tokens: 2 }, least: { bytes: 5000 } },
  });
  assert.ok(absolute instanceof api.BudgetError);
  assert.deepEqual([absolute.asked, absolute.least], [{ tokens: 2 }, { bytes: 5000 }]);
});

test("an unknown code keeps its code", () => {
  const error = errorFromWire({ code: "new", message: "new", details: {} });
  assert.equal(error.code, "new");
  assert.equal(error.constructor, api.PrefixKvError);
});

test("what a door throws is read as JSON, and is a defect otherwise", () => {
  const wire = { code: "option", message: "unknown", details: { suggestion: "maxTokens" } };
  const typed = errorFromThrown(new Error(JSON.stringify(wire)));
  assert.ok(typed instanceof api.OptionError);
  assert.equal(typed.details.suggestion, "maxTokens");
  const defect = errorFromThrown(new Error("42"));
  assert.ok(defect instanceof api.NativeError);
  assert.equal(defect.code, "internal");
  assert.equal(errorFromThrown(typed), typed);
});

test("an abort error has the web's name, the partial text and the signal's reason", () => {
  const error = abortError(AbortSignal.abort("why"), "so far");
  assert.equal(error.name, "AbortError");
  assert.equal(error.partial, "so far");
  assert.equal(error.cause, "why");
});
