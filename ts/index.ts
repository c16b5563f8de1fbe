/** Vision-language models on Bun, Deno and Node: load a model, show it images, stream its answers. */
import "./required.ts";

export type { CacheOption } from "./cache.ts";
export type { CalibrateOptions } from "./calibrate.ts";
export type { CalibrateBitsOptions } from "./calibrate_bits.ts";
export type { CalibrateChannelsOptions } from "./calibrate_channels.ts";
export type { CalibrateCllaOptions } from "./calibrate_clla.ts";
export type { CalibrateCskvOptions } from "./calibrate_cskv.ts";
export type { CalibrateHeadsOptions, HeadsSample } from "./calibrate_heads.ts";
export type { CalibrateKvquantOptions } from "./calibrate_kvquant.ts";
export type { CalibrateSharingOptions } from "./calibrate_sharing.ts";
export type {
  BitsSource,
  CalibrationSource,
  ChannelsSource,
  CodebookSource,
  DirectionsSource,
  HeadsSource,
  SharingSource,
} from "./calibration.ts";
export { Chat } from "./chat.ts";
export { checkDevice } from "./check_device.ts";
export { custom } from "./custom.ts";
export {
  AbortError,
  BudgetError,
  CalibrationError,
  ContextOverflowError,
  DeviceError,
  DisposedError,
  HubError,
  MediaError,
  ModelError,
  NativeError,
  OptionError,
  OutOfMemoryError,
  PlanError,
  PrefixKvError,
  PromptError,
  SnapshotError,
  UnsupportedModelError,
} from "./errors.ts";
export { FitError } from "./fit/error.ts";
export type { Fit, FitPoint } from "./fit/file.ts";
export type { FitOptions, FitSample } from "./fit/options.ts";
export * from "./generated/methods.ts";
export type {
  About,
  BitsCalibration,
  Calibration,
  ChannelsCalibration,
  CodebookCalibration,
  DeviceCheck,
  DirectionsCalibration,
  GenerationResult,
  HeadsCalibration,
  Keep,
  Kept,
  Memory,
  ModelInfo,
  Progress,
  Score,
  SharingCalibration,
  Timings,
  TokenLogprob,
  TokenLogprobs,
  Trace,
  Usage,
} from "./generated/wire.ts";
export { Generation, type Part } from "./generation.ts";
export type { HubOptions } from "./hub/options.ts";
export type { ImagePolicy } from "./images/policy.ts";
export { about, inspect, load } from "./load.ts";
export { type ImageInput, type ImageSource, image } from "./media.ts";
export type { Message, MessageContent, PromptInput } from "./messages.ts";
export { Model } from "./model.ts";
export type { LoadOptions } from "./options/load.ts";
export type {
  ChatOptions,
  GenerateOptions,
  PrefillOptions,
  QuestionOptions,
  ScoreOptions,
  TurnOptions,
} from "./options/requests.ts";
export { Prefix } from "./prefix.ts";
export { samplePicture } from "./sample.ts";
export { type VideoInput, type VideoOptions, video } from "./video.ts";
