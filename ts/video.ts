import { OptionError } from "./errors.ts";
import { bareImage, type ImageInput, type ImageSource, isImage } from "./media.ts";
import { Place } from "./options/place.ts";
import { fields, items, list, number, type Rules } from "./options/rules.ts";

/** Most frames of a video, and of all videos of a request. */
export const maxFrames = 768;
/** Most bytes of the encoded frames of a video: 512 MiB. */
export const maxVideoBytes: number = 512 * 1024 * 1024;

/**
 * When the frames of a video are shown: `fps` of them a second, or each at its own of the `times`.
 *
 * @example
 * ```ts
 * import { video, type VideoOptions } from "prefixkv";
 *
 * const options: VideoOptions = { times: [0, 0.5, 2] };
 * console.log(video(["first.png", "second.png", "third.png"], options).frames.length);
 * ```
 */
export interface VideoOptions {
  /**
   * Frames per second, above 0.
   *
   * Default: 24, as transformers assumes, unless `times` says more.
   */
  fps?: number;
  /** Seconds from the beginning, one for each frame, growing, from 0 to 1,000,000. */
  times?: readonly number[];
}

/**
 * A video of a prompt: frames, and when each is shown.
 *
 * @example
 * ```ts
 * import { video } from "prefixkv";
 *
 * const film = video(["first.png", "second.png"], { fps: 2 });
 * console.log(film.frames.map((frame) => frame.name), film.fps);
 * ```
 */
export interface VideoInput {
  /** Its frames, in order. */
  readonly frames: readonly ImageInput[];
  /** Frames per second, where that was said. */
  readonly fps: number | undefined;
  /** Seconds of each frame, where these were said. */
  readonly times: readonly number[] | undefined;
}

/**
 * Makes a video of frames for a prompt. The frames are what `image` takes: paths, addresses, bytes, or images; a plain string or URL
 * may come from outside, as in `images`. They are encoded pictures of one size: there is no decoder of films here, and nothing is sampled, so
 * every frame that is given is seen. A video may have 768 frames and 512 MiB; which models take videos is in docs/models.md, the others
 * refuse with a PromptError. Throws an OptionError for no frames, and for times that do not grow.
 *
 * @example
 * ```ts
 * import { image, load, video } from "prefixkv";
 *
 * const model = await load("./qwen2-vl");
 * const frames = [image("first.png"), image("second.png"), image("third.png")];
 * const messages = [{ role: "user", content: [video(frames, { fps: 2 }), "What happens?"] }];
 * const { text, usage } = await model.generate({ messages, maxTokens: 8 });
 * console.log(text, usage.imageTokens);
 * await model.dispose();
 * ```
 */
export function video(frames: readonly (ImageInput | ImageSource)[], options: VideoOptions = {}): VideoInput {
  return new Film(frames, options);
}

/** Whether a value is a video of {@link video}. */
export function isVideo(value: unknown): value is VideoInput {
  return Film.is(value);
}

const rules = { fps: number, times: list(number, "an array of seconds") } satisfies Rules<VideoOptions>;
const readOptions = fields(rules);

class Film implements VideoInput {
  readonly frames: readonly ImageInput[];
  readonly fps: number | undefined;
  readonly times: readonly number[] | undefined;
  readonly #made = true;

  /** Unlike `instanceof`, this touches nothing that could throw. */
  static is(value: unknown): value is Film {
    return typeof value === "object" && value !== null && #made in value;
  }

  constructor(frames: unknown, options: unknown) {
    const place = new Place("video");
    const { fps, times } = readOptions(options, place);
    this.frames = Object.freeze(readFrames(frames, place.field("frames")));
    this.fps = fps;
    this.times = times && Object.freeze(times);
    if (fps !== undefined && times !== undefined)
      throw place.invalid("have `fps` and `times`; one of them says it all");
    if (fps !== undefined && fps <= 0) throw place.field("fps").refuse("a number above 0", fps);
    if (times !== undefined) requireGrowth(times, this.frames.length, place.field("times"));
    Object.freeze(this);
  }
}

function readFrames(value: unknown, place: Place): ImageInput[] {
  if (!place.read(() => Array.isArray(value))) {
    throw place.refuse("an array of images", value, "write video([first, second])");
  }
  const frames = value as readonly unknown[];
  const length = place.read(() => frames.length);
  if (length === 0) throw place.invalid("is empty; a video has one frame at least");
  if (length > maxFrames) throw place.invalid(`has ${length} frames, over the limit of ${maxFrames}; leave some out`);
  return items(frames, place, (frame) => (isImage(frame) ? frame : bareImage(frame)));
}

function requireGrowth(times: readonly number[], frames: number, place: Place): void {
  if (times.length !== frames) throw place.invalid(`has ${times.length} numbers for ${frames} frames`);
  const at = times.findIndex((time, index) => time < 0 || time > 1e6 || time <= (times[index - 1] ?? -1));
  if (at >= 0) throw place.item(at).refuse("a number from 0 to 1000000, above the one before it", times[at]);
}

/** The error of frames whose bytes pass the limit. */
export function tooLong(bytes: number): OptionError {
  const message = `invalid option: the frames of a video have ${bytes} bytes or more, over the limit of ${maxVideoBytes}; compress them, or take fewer`;
  return new OptionError("option", message, { option: "frames", suggestion: null });
}
