/** Whether a name matches a pattern in which `*` stands for any characters and `?` for one, as in Python's fnmatch: slashes too. */
export function matches(pattern: string, name: string): boolean {
  let [at, from] = [0, 0];
  // Where the last star stood, and how much it takes so far.
  let [star, taken] = [-1, 0];
  while (from < name.length) {
    if (pattern[at] === "*") {
      [star, taken] = [at++, from];
    } else if (at < pattern.length && (pattern[at] === "?" || pattern[at] === name[from])) {
      at++;
      from++;
    } else if (star >= 0) {
      at = star + 1;
      from = ++taken;
    } else {
      return false;
    }
  }
  while (pattern[at] === "*") at++;
  return at === pattern.length;
}

/** Whether a pattern can match more than one name. */
export function isPattern(pattern: string): boolean {
  return /[*?]/.test(pattern);
}
