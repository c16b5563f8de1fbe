import { readCalibration } from "../calibration.ts";
import { type MethodFacts, methods } from "../generated/method_table.ts";
import { type CacheMethod, prefixkv } from "../generated/methods.ts";
import type { Calibration } from "../generated/wire.ts";

/** A part of a `cache` option, or the whole of it. */
export type Stages = readonly CacheMethod[];

/** Sizes are searched in steps of a thousandth. */
export const steps = 1000;

/** A store whose own value of one of these is larger is tried with this one too: entries that stay whole, and bits. */
const smaller: Readonly<Record<string, number>> = { window: 16, bits: 2 };

/** The name of an axis, and of the option of `fit` that says its points. */
export type AxisName = "sharing" | "methods" | "stores";

/**
 * All that is searched, in the order in which the stages stand in `cache`: one point of each axis, and none is a point too. Another axis is
 * another line here, and another name above.
 */
const axes: readonly { name: AxisName; points: readonly Stages[] }[] = [
  { name: "sharing", points: [] },
  { name: "methods", points: [[prefixkv()], [prefixkv({ decode: "none" })], [prefixkv({ variant: "paper" })]] },
  {
    name: "stores",
    points: methods
      .filter(({ role }) => role === "stores")
      .filter(isReady)
      .flatMap(storing),
  },
];

/** Whether a method needs nothing that a calibration of its own must find first. */
function isReady({ options }: MethodFacts): boolean {
  const found: readonly (typeof options)[number]["kind"][] = ["codebooks", "directions", "latents", "heads"];
  return options.every(({ kind }) => !found.includes(kind));
}

/** A store as it comes, and with less. */
function storing({ name, options }: MethodFacts): Stages[] {
  const larger = options.filter(
    (option) => Number(option.default) > (smaller[option.name] ?? Number.POSITIVE_INFINITY),
  );
  const given = [{}, ...larger.map((option) => ({ [option.name]: smaller[option.name] }))];
  return given.map((options) => [{ method: name, ...options } as CacheMethod]);
}

/** The points of all axes: those that are given, or what there is by default. */
export function pointsOf(
  given: (name: AxisName) => readonly Stages[] | undefined,
): Readonly<Record<AxisName, readonly Stages[]>> {
  return Object.fromEntries(axes.map(({ name, points }) => [name, given(name) ?? points])) as Record<
    AxisName,
    Stages[]
  >;
}

/** One point of every axis. Of what it keeps there are sizes, in steps; a combination without sizes has one. */
export class Combination {
  /** The least size that no sample refuses, as far as it is known. */
  least: number;
  /** The largest size. */
  readonly most: number;
  /** Whether entries are stored in groups, which makes bytes fall here and there as sizes rise. */
  readonly grouped: boolean;
  /** Whether more than one axis has a point in it, so that the engine may refuse what it takes alone. */
  readonly joint: boolean;
  readonly #points: readonly Stages[];

  constructor(points: readonly Stages[]) {
    this.#points = points;
    this.joint = points.filter((point) => point.length > 0).length > 1;
    const stages = points.flat();
    const stage = stages.find(hasSizes) as { calibration?: Calibration } | undefined;
    const keeps = stage?.calibration?.rows.map(({ keep }) => keep) ?? [1 / steps, 1];
    this.least = stage === undefined ? steps : Math.ceil(steps * Math.min(...keeps) - 1e-9);
    this.most = stage === undefined ? steps : Math.floor(steps * Math.max(...keeps) + 1e-9);
    this.grouped = stages.some(({ method }) => factsOf(method)?.options.some(({ name }) => name === "group"));
  }

  /** The `cache` option at a size. A method that is to keep everything is left out. */
  at(size: number): Stages {
    const points = this.#points.filter((point) => size < steps || !point.some(hasSizes));
    const stages = points.flat().map((stage) => (hasSizes(stage) ? { ...stage, keep: size / steps } : stage));
    return stages.length === 0 ? [{ method: "full" }] : stages;
  }
}

function factsOf(method: string): MethodFacts | undefined {
  return methods.find(({ name }) => name === method);
}

/** Whether a stage can be asked for different sizes. */
function hasSizes({ method, ...options }: CacheMethod): boolean {
  const { calibration } = options as { calibration?: Calibration | readonly number[] };
  if (calibration && (!("rows" in calibration) || calibration.rows.length < 2)) return false;
  return factsOf(method)?.budget !== "outcome";
}

/** Every combination of the points; calibrations are read, so that what comes out stands for itself. */
export async function combine(
  points: Readonly<Record<AxisName, readonly Stages[]>>,
  signal?: AbortSignal,
): Promise<Combination[]> {
  let found: Stages[][] = [[]];
  for (const { name } of axes) {
    const read = await Promise.all(
      points[name].map((point) => Promise.all(point.map((stage) => whole(stage, signal)))),
    );
    found = found.flatMap((before) => [[], ...read].map((point) => [...before, point]));
  }
  return found.map((points) => new Combination(points));
}

async function whole(stage: CacheMethod, signal: AbortSignal | undefined): Promise<CacheMethod> {
  const { keep: _, ...options } = stage as CacheMethod & { keep?: unknown; calibration?: string };
  if (typeof options.calibration !== "string") return options as CacheMethod;
  return { ...options, calibration: await readCalibration(options.calibration, signal) } as CacheMethod;
}
