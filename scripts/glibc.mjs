// Which glibc a native file needs at least, read from the file itself.

/** The highest version of glibc whose symbols a linked file names, such as "2.34"; undefined where it names none. */
export function glibcFloor(bytes) {
  // The dynamic string table has every needed version as a string of its own between zero bytes.
  const found = [...bytes.toString("latin1").matchAll(/\0GLIBC_(\d+(?:\.\d+)+)(?=\0)/g)].map((match) => match[1]);
  return found.sort(compareVersions).at(-1);
}

export function compareVersions(one, other) {
  const [a, b] = [one, other].map((version) => version.split(".").map(Number));
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
