/** The values of a command line by flag name, with typed access. */
export class Values {
  readonly positionals: readonly string[];
  readonly #flags: ReadonlyMap<string, unknown>;

  constructor(flags: ReadonlyMap<string, unknown>, positionals: readonly string[]) {
    this.#flags = flags;
    this.positionals = positionals;
  }

  has(name: string): boolean {
    return this.#flags.has(name);
  }

  text(name: string): string | undefined {
    return this.#flags.get(name) as string | undefined;
  }

  texts(name: string): string[] {
    return (this.#flags.get(name) as string[] | undefined) ?? [];
  }

  number(name: string): number | undefined {
    return this.#flags.get(name) as number | undefined;
  }

  /** The given flags among `names` as camel-cased options, e.g. for `load` and `generate`. */
  options(names: readonly string[]): Record<string, unknown> {
    const given = names.filter((name) => this.#flags.has(name));
    return Object.fromEntries(given.map((name) => [camel(name), this.#flags.get(name)]));
  }
}

function camel(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
