// @ts-self-types="./bundled.d.mts"
// The files of the package beside its code, as bundlers see them: `bun build --compile` puts what a literal import names into
// the program, and the import gives the path there. Nothing here is imported while the files lie where the package has them.
export const bundled = {
  "models/tiny-llava/chat_template.jinja": () =>
    import("../models/tiny-llava/chat_template.jinja", { with: { type: "file" } }),
  "models/tiny-llava/chat_template.json": () =>
    import("../models/tiny-llava/chat_template.json", { with: { type: "file" } }),
  "models/tiny-llava/config.json": () => import("../models/tiny-llava/config.json", { with: { type: "file" } }),
  "models/tiny-llava/generation_config.json": () =>
    import("../models/tiny-llava/generation_config.json", { with: { type: "file" } }),
  "models/tiny-llava/model.safetensors": () =>
    import("../models/tiny-llava/model.safetensors", { with: { type: "file" } }),
  "models/tiny-llava/preprocessor_config.json": () =>
    import("../models/tiny-llava/preprocessor_config.json", { with: { type: "file" } }),
  "models/tiny-llava/processor_config.json": () =>
    import("../models/tiny-llava/processor_config.json", { with: { type: "file" } }),
  "models/tiny-llava/special_tokens_map.json": () =>
    import("../models/tiny-llava/special_tokens_map.json", { with: { type: "file" } }),
  "models/tiny-llava/tokenizer.json": () => import("../models/tiny-llava/tokenizer.json", { with: { type: "file" } }),
  "models/tiny-llava/tokenizer_config.json": () =>
    import("../models/tiny-llava/tokenizer_config.json", { with: { type: "file" } }),
  "calibrations/llava-1.5-7b.json": () => import("../calibrations/llava-1.5-7b.json", { with: { type: "file" } }),
  "calibrations/llava-1.5-13b.json": () => import("../calibrations/llava-1.5-13b.json", { with: { type: "file" } }),
  "data/scenes/scene-000.png": () => import("../data/scenes/scene-000.png", { with: { type: "file" } }),
  "package.json": () => import("../package.json", { with: { type: "file" } }),
};
