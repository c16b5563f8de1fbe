/** Whether a file is in GGUF's format, by its name. */
export function isGguf(name: string): boolean {
  return /\.gguf$/i.test(name);
}

/** Whether a GGUF file holds a vision tower, by its name. */
export function isTower(name: string): boolean {
  return isGguf(name) && /mmproj/i.test(baseName(name));
}

/** The name without the folders of a repository. */
export function baseName(name: string): string {
  return name.split("/").at(-1) ?? "";
}

/**
 * All files of the model that a GGUF file is of: itself, or of a model in several files, `NAME-00001-of-00003.gguf` and so on, all of
 * them in their order.
 */
export function partsOf(name: string): string[] {
  const [, stem, number, count, extension] = /^(.*-)(\d{5})(-of-\d{5})(\.gguf)$/i.exec(name) ?? [];
  const [which, all] = [Number(number), Number(count?.slice(4))];
  if (stem === undefined || !(which >= 1 && which <= all)) return [name];
  return Array.from({ length: all }, (_, at) => `${stem}${String(at + 1).padStart(5, "0")}${count}${extension}`);
}

/** Of the files of a model in GGUF's format, its first, and the one that is no part of it: the vision tower. */
export function modelAndTower(names: readonly string[]): [string | undefined, string | undefined] {
  const [model, ...others] = names.filter(isGguf);
  return [model, others.find((name) => !partsOf(model ?? "").includes(name))];
}
