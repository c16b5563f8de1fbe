// Methods that a committed grid has not got yet, put into its figures: the lines of the other methods are not needed for it.
import type { Results } from "../../ts/eval/files.ts";
import { short } from "../../ts/eval/measure.ts";
import type { RunRecord, TimingRecord } from "../../ts/eval/records.ts";
import type { EvalSample } from "../../ts/eval/samples.ts";
import type { Origin } from "../machine.ts";
import { type Evaluated, sumUp } from "./summary.ts";

/** A grid of new methods, on the samples and at the sizes of the committed one. */
interface New {
  /** Their lines and the full cache's, and `random`'s where they are compared with it. */
  results: Results;
  commits: readonly string[];
  samples: readonly EvalSample[];
  origin: Origin;
}

/** `committed` with the new methods, in the order of `ids`. Throws where lines of today say nothing beside the committed figures. */
export function added(
  committed: Evaluated,
  { results, commits, samples, origin }: New,
  ids: readonly string[],
): Evaluated {
  const names = new Set(committed.run.methods.map(({ id }) => id));
  const isNew = ({ method }: { method: string }): boolean => !names.has(method);
  const fresh = sumUp(results, samples, origin);
  const full = ({ cells }: Evaluated): string => JSON.stringify(cells.find(({ method }) => method === "full"));
  if (asked(committed.run) !== asked(fresh.run) || full(committed) !== full(fresh))
    throw new Error(
      `${committed.grid}: the run or the full cache is no longer the committed one; measure the whole grid`,
    );
  // Sums over all lines leave `random` out, whose lines the committed figures hold already.
  const { spoiled } = sumUp(
    linesOf(results, (line) => line.method === "full" || isNew(line)),
    samples,
    origin,
  );
  const times = linesOf(results, isNew).timings;
  const total = (of: (line: TimingRecord) => number): number => times.reduce((sum, line) => sum + of(line), 0);
  const wallMs = committed.timings.wallMs + total((line) => line.wallMs);
  const engineMs = committed.timings.engineMs + total((line) => line.engineMs);
  const place = (id: string): number => (id === "full" ? -1 : ids.indexOf(id));
  const merged = <Item>(of: (grid: Evaluated) => readonly Item[], idOf: (item: Item) => string): Item[] =>
    [...of(committed), ...of(fresh).filter((item) => isNew({ method: idOf(item) }))].sort(
      (one, other) => place(idOf(one)) - place(idOf(other)),
    );
  const method = (item: { method: string }): string => item.method;
  return {
    ...committed,
    commits: [...new Set([...(committed.commits ?? []), ...commits])].sort(),
    run: {
      ...committed.run,
      methods: merged(
        ({ run }) => run.methods,
        ({ id }) => id,
      ),
    },
    ...(committed.unseen && {
      unseen: { ...committed.unseen, cells: merged(({ unseen }) => unseen?.cells ?? [], method) },
    }),
    ...(committed.spoiled && {
      spoiled: {
        answers: committed.spoiled.answers + (spoiled?.answers ?? 0),
        begun: committed.spoiled.begun + (spoiled?.begun ?? 0),
      },
    }),
    cells: merged(({ cells }) => cells, method),
    timings: {
      origin,
      wallMs: short(wallMs),
      engineMs: short(engineMs),
      ratio: short(wallMs / engineMs),
      cells: merged(({ timings }) => timings.cells, method),
    },
  };
}

/** All that a run was asked but its methods. */
const asked = ({ methods: _, ...run }: RunRecord): string => JSON.stringify(run);

function linesOf({ run, quality, timings }: Results, wanted: (line: { method: string }) => boolean): Results {
  const at = quality.flatMap((line, index) => (wanted(line) ? [index] : []));
  return {
    run,
    quality: at.flatMap((index) => quality[index] ?? []),
    timings: at.flatMap((index) => timings[index] ?? []),
  };
}
