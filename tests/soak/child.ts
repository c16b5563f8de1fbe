// One process of the soak: `child.ts DOOR ROUNDS SEED` prints its samples as JSON, and what went wrong.
import { type Sample, soak } from "./rounds.ts";

const [door, rounds, seed] = process.argv.slice(2) as ["napi" | "ffi", string, string];
const samples: Sample[] = [];
let failure: string | null = null;
try {
  const onRound = (sample: Sample, round: number): void => {
    samples.push(sample);
    if (round % 10 === 9) process.stderr.write(".");
  };
  await soak({ door, rounds: Number(rounds), seed: Number(seed), onRound });
} catch (error) {
  failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
}
console.log(JSON.stringify({ failure, samples }));
