// Asks several questions about one picture over a quarter of the cache.
import { h2o, image, load } from "prefixkv";

await using model = await load();
await using chat = model.chat({ cache: h2o({ keep: 0.25 }) });
const picture = image(process.argv[2] ?? "data/scenes/scene-000.png");
for (const content of [
  [picture, "How many objects are there?"],
  "What color is the star?",
  "What is in the bottom right?",
]) {
  const { text, usage, memory } = await chat.send(content);
  console.log(
    `${text} (${usage.cachedTokens} of ${usage.promptTokens} tokens cached, ${memory.resident} of ${memory.full} bytes)`,
  );
}
