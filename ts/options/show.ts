/** A value for an error message: what it is, in a few words, whatever it is. */
export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return quote(value);
    case "bigint":
      return `${shorten(String(value), 24)}n, a BigInt`;
    case "symbol":
      return "a symbol";
    case "function":
      return guarded(() => (value.name === "" ? "a function" : `the function ${shorten(String(value.name), 40)}`));
    case "object":
      return value === null ? "null" : guarded(() => showObject(value));
    default:
      return Object.is(value, -0) ? "-0" : String(value);
  }
}

/** A text in quotes, its control characters escaped, cut where it is long. */
export function quote(text: string, most = 60): string {
  const cut = text.length > most ? `${text.slice(0, most)}...` : text;
  return JSON.stringify(cut.toWellFormed());
}

/** A text without control characters, cut in the middle where it is long. */
export function shorten(text: string, most = 120): string {
  const half = Math.floor(most / 2);
  const cut = text.length > most ? `${text.slice(0, half)}...${text.slice(-half)}` : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is replaced
  return cut.toWellFormed().replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** Describes a thrown value in words. */
export function reasonOf(thrown: unknown): string {
  return guarded(() => {
    const message = (thrown as { message?: unknown } | null | undefined)?.message;
    return shorten(typeof message === "string" ? message : show(thrown));
  });
}

function showObject(value: object): string {
  if (Array.isArray(value)) return value.length === 0 ? "an empty array" : `an array of ${value.length}`;
  const name = className(value);
  if (name !== undefined && name !== "Object") return `an instance of ${shorten(name, 40)}`;
  const keys = Object.keys(value);
  if (keys.length === 0) return "an empty object";
  const named = keys.slice(0, 4).map((key) => shorten(key, 24));
  return `an object with ${named.join(", ")}${keys.length > named.length ? ", ..." : ""}`;
}

function className(value: object): string | undefined {
  const made: unknown = (Object.getPrototypeOf(value) as { constructor?: { name?: unknown } } | null)?.constructor
    ?.name;
  return typeof made === "string" && made !== "" ? made : undefined;
}

/** Proxies and getters may throw at every touch. */
function guarded(tell: () => string): string {
  try {
    return tell();
  } catch {
    return "an object that cannot be read";
  }
}
