import { NativeError } from "../errors.ts";
import { abiVersion, status } from "../generated/abi.ts";
import type { Native, NativeEngine, NativeTicket } from "./contract.ts";
import type { Library, OpenLibrary } from "./library.ts";
import { locateAddon, missingAddon, type OpenDoor } from "./napi.ts";

/** Opens the C ABI of the addon's file through the foreign functions of a runtime. */
export async function openFfi(runtime: "bun" | "deno"): Promise<OpenDoor> {
  const { path, file } = await locateAddon();
  return { native: await openLibrary(runtime, path, file), file };
}

/** {@link openFfi} for any file that has the C ABI; `name` is what messages call it. */
export async function openLibrary(runtime: "bun" | "deno", path: string, name: string): Promise<Native> {
  let library: Library;
  try {
    library = await dlopen(runtime, path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw missingAddon(`${process.platform}-${process.arch}`, [{ file: name, reason }]);
  }
  const found = library.symbols.pkv_abi_version();
  if (found === abiVersion) return new FfiNative(library);
  const reason = `${name} has version ${found} of the C ABI, this code needs ${abiVersion}; run \`npm run build:native\``;
  throw new NativeError("native-missing", reason, { found, needed: abiVersion });
}

/** Opens a file through the foreign functions of a runtime; throws what that throws. */
export async function dlopen(runtime: "bun" | "deno", path: string): Promise<Library> {
  const open: OpenLibrary =
    runtime === "bun" ? (await import("./ffi_bun.ts")).openBun : (await import("./ffi_deno.ts")).openDeno;
  return open(path);
}

/** The arguments that end every call with a text: buffer, capacity, place for the size. */
type Out = [Uint8Array, number, Uint32Array];

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** {@link Native} over the C ABI. */
export class FfiNative implements Native {
  readonly #calls: Calls;

  constructor(library: Library) {
    this.#calls = new Calls(library);
  }

  about(): string {
    return this.#calls.text((...out) => this.#calls.symbols.pkv_about(...out)) ?? "";
  }

  open(json: string): NativeEngine {
    const bytes = encoder.encode(json);
    const handle = this.#calls.handle((place, ...out) => {
      return this.#calls.symbols.pkv_open(bytes, bytes.length, place, ...out);
    });
    return new FfiEngine(this.#calls, handle);
  }

  inspect(json: string): NativeTicket {
    const bytes = encoder.encode(json);
    const handle = this.#calls.handle((place, ...out) => {
      return this.#calls.symbols.pkv_inspect(bytes, bytes.length, place, ...out);
    });
    return new FfiTicket(this.#calls, handle);
  }

  checkDevice(json: string): NativeTicket {
    const bytes = encoder.encode(json);
    const handle = this.#calls.handle((place, ...out) => {
      return this.#calls.symbols.pkv_check_device(bytes, bytes.length, place, ...out);
    });
    return new FfiTicket(this.#calls, handle);
  }
}

class FfiEngine implements NativeEngine {
  readonly #calls: Calls;
  readonly #handle: number;

  constructor(calls: Calls, handle: number) {
    this.#calls = calls;
    this.#handle = handle;
    calls.abandoned.register(this, handle);
  }

  loading(): NativeTicket {
    return this.#ticket((place, ...out) => this.#calls.symbols.pkv_loading(this.#handle, place, ...out));
  }

  submit(json: string, images: Uint8Array[]): NativeTicket {
    const bytes = encoder.encode(json);
    const addresses = BigUint64Array.from(images, (image) => (image.length > 0 ? this.#calls.address(image) : 0n));
    const lengths = BigUint64Array.from(images, (image) => BigInt(image.length));
    return this.#ticket((place, ...out) => {
      return this.#calls.symbols.pkv_submit(
        this.#handle,
        bytes,
        bytes.length,
        images.length > 0 ? addresses : null,
        images.length > 0 ? lengths : null,
        images.length,
        place,
        ...out,
      );
    });
  }

  close(): NativeTicket {
    return this.#ticket((place, ...out) => this.#calls.symbols.pkv_close(this.#handle, place, ...out));
  }

  #ticket(call: (place: Uint32Array, ...out: Out) => number): NativeTicket {
    return new FfiTicket(this.#calls, this.#calls.handle(call), this);
  }
}

class FfiTicket implements NativeTicket {
  readonly #calls: Calls;
  /** 0 once the stream has ended. */
  #handle: number;
  /** Held because an engine that is collected ends its tickets. */
  engine: FfiEngine | undefined;
  #pending = false;

  constructor(calls: Calls, handle: number, engine?: FfiEngine) {
    this.#calls = calls;
    this.#handle = handle;
    this.engine = engine;
    calls.abandoned.register(this, handle, this);
  }

  async next(): Promise<string | null> {
    if (this.#pending) {
      const message = "invalid option: `next` is still pending; one call at a time";
      throw new Error(JSON.stringify({ code: "option", message, details: { suggestion: null } }));
    }
    this.#pending = true;
    try {
      for (;;) {
        if (this.#handle === 0) return null;
        const events = this.#calls.text((...out) => this.#calls.symbols.pkv_next(this.#handle, 0, ...out));
        if (events === undefined) this.#release();
        else if (events !== "") return events;
        else await this.#calls.wait(this.#handle);
      }
    } finally {
      this.#pending = false;
    }
  }

  cancel(): void {
    if (this.#handle !== 0) this.#calls.symbols.pkv_cancel(this.#handle);
  }

  #release(): void {
    this.#calls.abandoned.unregister(this);
    this.#calls.symbols.pkv_release(this.#handle);
    this.#handle = 0;
    this.engine = undefined;
  }
}

/** Calls with their buffers: what comes out is decoded before the next call, so all share one. */
class Calls {
  readonly #library: Library;
  readonly #handle = new Uint32Array(1);
  readonly #size = new Uint32Array(1);
  #out = new Uint8Array(1 << 16);
  /** Releases what is collected before its end. */
  readonly abandoned: FinalizationRegistry<number>;

  constructor(library: Library) {
    this.#library = library;
    this.abandoned = new FinalizationRegistry((handle) => void library.symbols.pkv_release(handle));
  }

  get symbols(): Library["symbols"] {
    return this.#library.symbols;
  }

  address(bytes: Uint8Array): bigint {
    return this.#library.address(bytes);
  }

  wait(ticket: number): Promise<void> {
    return this.#library.wait(ticket);
  }

  /** The output of a call, possibly empty; undefined at the end of a stream. Throws an Error with the text of a failure. */
  text(call: (...out: Out) => number): string | undefined {
    for (;;) {
      const found = call(this.#out, this.#out.length, this.#size);
      const size = this.#size[0] ?? 0;
      if (size > this.#out.length) {
        this.#out = new Uint8Array(2 ** Math.ceil(Math.log2(size)));
        continue;
      }
      if (found === status.end) return undefined;
      const text = decoder.decode(this.#out.subarray(0, size));
      if (found < 0) throw new Error(text === "" ? `the C ABI returned ${found}` : text);
      return text;
    }
  }

  /** The handle that a call gives. Throws like {@link Calls.text}. */
  handle(call: (place: Uint32Array, ...out: Out) => number): number {
    this.text((...out) => call(this.#handle, ...out));
    return this.#handle[0] ?? 0;
  }
}
