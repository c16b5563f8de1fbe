// Compares what methods cost in quality: the perplexity of a good answer, and the bytes that are left.
import { type CacheMethod, full, h2o, image, knorm, load, prefixkv, random, snapkv } from "prefixkv";

await using model = await load();
const messages = [
  { role: "user", content: [image(process.argv[2] ?? "data/scenes/scene-000.png"), "What color is the star?"] },
];
const keep = 0.25;
const methods: CacheMethod[] = [
  full(),
  prefixkv({ keep }),
  h2o({ keep }),
  snapkv({ keep }),
  knorm({ keep }),
  random({ keep }),
];
for (const cache of methods) {
  const { ppl, memory } = await model.score({ messages, answer: "Green.", cache });
  console.log(cache.method.padEnd(10), ppl.toFixed(2), memory.resident);
}
