// Describes a picture as the words come.
import { image, load } from "prefixkv";

await using model = await load();
const picture = image(process.argv[2] ?? "data/scenes/scene-000.png");
const out = model.generate({ messages: [{ role: "user", content: [picture, "Describe the image in detail."] }] });
for await (const part of out) process.stdout.write(part.text);
const { usage, memory } = await out;
console.log(`\n${usage.completionTokens} tokens, ${memory.resident} bytes of cache`);
