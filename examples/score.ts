// Asks which of several answers the model finds likeliest.
import { image, load } from "prefixkv";

await using model = await load();
const content = [image(process.argv[2] ?? "data/scenes/scene-000.png"), "What color is the star?"];
for (const answer of ["Green.", "Red.", "Purple."]) {
  const { ppl } = await model.score({ messages: [{ role: "user", content }], answer });
  console.log(answer, ppl.toFixed(2));
}
