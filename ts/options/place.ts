import { OptionError } from "../errors.ts";
import { reasonOf, show } from "./show.ts";

/** Most characters that all texts of a call have together: 8 MiB, less than a request to the engine has room for. Files come on top. */
export const maxText: number = 8 * 1024 * 1024;

/** Where a value stands among what a call was given, for errors: `stop[2]` of `generate`. */
export class Place {
  readonly call: string;
  readonly path: string;
  readonly #room: { characters: number };

  constructor(call: string, path = "", room: { characters: number } = { characters: maxText }) {
    this.call = call;
    this.path = path;
    this.#room = room;
  }

  field(name: string): Place {
    const plain = /^[A-Za-z_$][\w$]{0,40}$/.test(name);
    const step = plain ? name : `[${JSON.stringify(name.slice(0, 40))}]`;
    return new Place(
      this.call,
      this.path === "" || !plain ? `${this.path}${step}` : `${this.path}.${step}`,
      this.#room,
    );
  }

  item(index: number): Place {
    return new Place(this.call, `${this.path}[${index}]`, this.#room);
  }

  get name(): string {
    return this.path === "" ? `the options of ${this.call}` : `\`${this.path}\` of ${this.call}`;
  }

  /** Counts a text or the items of an array, so that nothing is copied that no request can hold. */
  spend(length: number): void {
    this.#room.characters -= length;
    if (this.#room.characters >= 0) return;
    throw this.invalid(`has ${length} characters or items; all texts of a call may have ${maxText} together`);
  }

  /** The error for a value that is not `allowed`. */
  refuse(allowed: string, value: unknown, advice?: string): OptionError {
    return this.invalid(`must be ${allowed}, found ${show(value)}${advice === undefined ? "" : `; ${advice}`}`);
  }

  /** The error for this place, with a reason that goes on where its name ends. */
  invalid(reason: string, suggestion: string | null = null): OptionError {
    return new OptionError("option", `invalid option: ${this.name} ${reason}`, { option: this.path, suggestion });
  }

  /** The error for a field that does not exist. */
  unknown(owner: string, advice: string, suggestion: string | undefined): OptionError {
    const name = this.path.slice(0, 100);
    const details = { option: name, suggestion: suggestion ?? null };
    return new OptionError("option", `invalid option: ${owner} has no \`${name}\`; ${advice}`, details);
  }

  /** Returns the result of `get`; a getter or proxy that throws is reported as an error at this place. */
  read<T>(get: () => T): T {
    try {
      return get();
    } catch (cause) {
      const message = `invalid option: ${this.name} cannot be read: ${reasonOf(cause)}`;
      throw new OptionError("option", message, { option: this.path, suggestion: null }, { cause });
    }
  }

  /** Returns the result of `get` on an object; undefined for any other value. */
  look<T>(value: unknown, get: (object: object) => T): T | undefined {
    return typeof value === "object" && value !== null ? this.read(() => get(value)) : undefined;
  }
}
