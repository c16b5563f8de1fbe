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
