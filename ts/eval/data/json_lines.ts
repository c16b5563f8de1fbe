// Data of one's own: JSON Lines with { image, question, answer } per line, and optionally id, answers (accepted short answers) and raw
// (the question is the whole prompt, with `<image>`). In place of the image, a video: frames, and fps or times. Pictures lie relative to the
// file.
import { basename, dirname, resolve } from "node:path";
import { badData, reasonOf } from "../errors.ts";
import { dataOf, type EvalData, type EvalSample } from "../samples.ts";
import { kind, Place, readText } from "./json.ts";
import { picture } from "./vicuna.ts";

const known = ["id", "image", "frames", "fps", "times", "question", "answer", "answers", "raw"];

/** The samples of a `.jsonl` file; empty lines are passed over. */
export async function jsonLines(file: string): Promise<EvalData> {
  const samples: EvalSample[] = [];
  for (const [index, text] of (await readText(file)).split("\n").entries()) {
    if (text.trim() === "") continue;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw badData(file, index + 1, `it is not JSON: ${reasonOf(error)}`);
    }
    samples.push(sampleOf(file, index + 1, value));
  }
  return dataOf(basename(file), samples);
}

function sampleOf(file: string, line: number, value: unknown): EvalSample {
  const place = new Place(file, "the sample", line);
  const sample = place.object(value);
  const other = Object.keys(sample).find((name) => !known.includes(name));
  if (other !== undefined) place.fail(`has the unknown field \`${other}\`; there are ${known.join(", ")}`);
  const { id, answers, raw } = sample;
  if (raw !== undefined && typeof raw !== "boolean") place.fail(`has \`raw\` as ${kind(raw)}, not true or false`);
  if (answers !== undefined && !(Array.isArray(answers) && answers.every((answer) => typeof answer === "string")))
    place.fail("has `answers` that are no array of texts");
  const question = place.text(sample, "question");
  const film = sample.frames === undefined ? undefined : filmOf(file, sample, place);
  if (raw === true && film === undefined && question.split(picture).length !== 2)
    place.fail(`is raw and needs one ${picture} in its question`);
  return {
    id: id === undefined ? `line-${line}` : place.text(sample, "id"),
    ...(film ?? place.inside(dirname(file), place.text(sample, "image"))),
    question,
    ...(raw === true && { raw }),
    answer: place.text(sample, "answer"),
    ...(answers !== undefined && { answers: answers as string[] }),
  };
}

/** The frames of a video and their times, which `video` checks when the sample is asked about. */
function filmOf(
  file: string,
  sample: Record<string, unknown>,
  place: Place,
): Pick<EvalSample, "image" | "video" | "within"> {
  const { frames, fps, times, image } = sample;
  const isNumbers = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((time) => typeof time === "number");
  if (image !== undefined) place.fail("has `image` and `frames`; it is about one of them");
  if (!Array.isArray(frames) || frames.length === 0) return place.fail("has `frames` that are no array of files");
  if (fps !== undefined && typeof fps !== "number") return place.fail(`has \`fps\` as ${kind(fps)}, not a number`);
  if (times !== undefined && !isNumbers(times)) return place.fail("has `times` that are no array of seconds");
  const files = frames.map((frame) => place.inside(dirname(file), place.text({ frame }, "frame")).image);
  const timing = { ...(fps !== undefined && { fps }), ...(times !== undefined && { times }) };
  const [first = ""] = files;
  return { image: first, video: { frames: files, ...timing }, within: resolve(dirname(file)) };
}
