// SnapKV in a function: each head keeps what the last 32 queries of the prompt look at, neighbours pooled, and those queries' own entries.
import { deepEqual } from "node:assert/strict";
import { custom, image, load, snapkv } from "prefixkv";

const window = 32;
const own = custom({
  keep: 0.5,
  needs: { lanes: "head", sums: "window", window },
  plan({ most, lanes }) {
    const layers = (lanes.at(-1)?.layer ?? 0) + 1;
    const whole = Math.floor((most ?? 0) / (lanes.length / layers));
    return lanes.map(({ layer, sums }) => {
      const size = Math.floor(whole / layers) + (layer < whole % layers ? 1 : 0);
      const before = sums.length - Math.min(window, Math.floor(size / 2));
      const votes = sums.subarray(0, before);
      const pooled = votes.map((_, at) => Math.max(...votes.subarray(Math.max(0, at - 3), at + 4)));
      const ranked = [...votes.keys()].sort((a, b) => (pooled[b] ?? 0) - (pooled[a] ?? 0) || a - b);
      const kept = ranked.slice(0, size - (sums.length - before)).sort((a, b) => a - b);
      return [...kept, ...[...sums.keys()].slice(before)];
    });
  },
});
await using model = await load();
const content = [image(process.argv[2] ?? "data/scenes/scene-000.png"), "What color is the star?"];
const asked = { messages: [{ role: "user", content }], answer: "Green.", kept: true };
const { kept, ppl } = await model.score({ ...asked, cache: own });
deepEqual(kept, (await model.score({ ...asked, cache: snapkv({ keep: 0.5 }) })).kept);
console.log(`the perplexity of both is ${ppl}`);
