import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { readDataUrl } from "../../ts/images/data_url.ts";
import { image, MediaError } from "../../ts/index.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const content = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
const base64 = Buffer.from(content).toString("base64");
const folder = temporaryFolder("sources");

/** The refusal of a source, at once or when it is read. */
async function refusal(source: unknown): Promise<string> {
  try {
    await image(source as never).bytes();
  } catch (error) {
    assert.ok(error instanceof MediaError, String(error));
    const told = `${error.message} ${JSON.stringify(error.details)} ${String(error.cause ?? "")}`;
    assert.ok(told.length < 600, `${told.length} characters: ${told.slice(0, 300)}`);
    return error.message;
  }
  return "it was read";
}

const bytes = async (source: unknown): Promise<number[]> => [...(await image(source as never).bytes())];

test("bytes of every kind and every realm are read", async () => {
  const realm = createContext({ content: [...content] });
  const foreign = (code: string): unknown => runInContext(code, realm);
  const shared = new SharedArrayBuffer(8);
  new Uint8Array(shared).set(content);
  const resizable = new ArrayBuffer(8, { maxByteLength: 16 });
  new Uint8Array(resizable).set(content);
  const growable = new SharedArrayBuffer(8, { maxByteLength: 16 });
  new Uint8Array(growable).set(content);
  const wide = new Uint8Array([9, ...content, 9]);
  const sources: Record<string, unknown> = {
    Uint8Array: content,
    "a view of a part": wide.subarray(1, 9),
    Buffer: Buffer.from(content),
    "a pooled Buffer": Buffer.from(base64, "base64"),
    Uint8ClampedArray: new Uint8ClampedArray(content),
    Int8Array: new Int8Array(content.buffer.slice(0)),
    Uint16Array: new Uint16Array(content.buffer.slice(0)),
    Float64Array: new Float64Array(content.buffer.slice(0)),
    BigUint64Array: new BigUint64Array(content.buffer.slice(0)),
    DataView: new DataView(wide.buffer, 1, 8),
    ArrayBuffer: content.buffer.slice(0),
    SharedArrayBuffer: shared,
    "a view of a SharedArrayBuffer": new Uint8Array(shared),
    "a resizable ArrayBuffer": resizable,
    "a view that tracks a length": new Uint8Array(resizable),
    "a growable SharedArrayBuffer": growable,
    "a subclass": new (class Bytes extends Uint8Array {})(content),
    Blob: new Blob([content]),
    File: new File([content], "a.png"),
    "Uint8Array of another realm": foreign("new Uint8Array(content)"),
    "ArrayBuffer of another realm": foreign("new Uint8Array(content).buffer"),
    "DataView of another realm": foreign("new DataView(new Uint8Array(content).buffer)"),
    "SharedArrayBuffer of another realm": foreign(
      "(() => { const b = new SharedArrayBuffer(8); new Uint8Array(b).set(content); return b; })()",
    ),
    "Uint8ClampedArray of another realm": foreign("new Uint8ClampedArray(content)"),
    "a Blob by what it can do": {
      [Symbol.toStringTag]: "Blob",
      size: 8,
      arrayBuffer: async () => content.buffer.slice(0),
    },
  };
  for (const [name, source] of Object.entries(sources)) assert.deepEqual(await bytes(source), [...content], name);
  const url = { [Symbol.toStringTag]: "URL", href: `data:;base64,${base64}` };
  assert.deepEqual(await bytes(url), [...content]);
});

test("sources are mapped to images", async () => {
  const [first, second] = [content, new Blob([content])].map(image);
  assert.deepEqual([await first?.bytes(), await second?.bytes()], [content, content]);
  assert.throws(() => image(content, 0 as never), /must be a plain object, found 0/);
});

test("bytes are those of the call: what happens to them later changes nothing", async () => {
  const changed = Uint8Array.from(content);
  const moved = Uint8Array.from(content);
  const shrunk = new ArrayBuffer(8, { maxByteLength: 8 });
  new Uint8Array(shrunk).set(content);
  const images = [image(changed), image(moved), image(shrunk)];
  changed.fill(0);
  structuredClone(moved, { transfer: [moved.buffer] });
  shrunk.resize(0);
  for (const made of images) {
    assert.deepEqual([...(await made.bytes())], [...content]);
    (await made.bytes()).fill(0);
    assert.deepEqual([...(await made.bytes())], [...content]);
  }
  assert.match(await refusal(moved), /its buffer is detached/);
  assert.match(await refusal(shrunk), /it is empty/);
});

test("data URLs are those of the WHATWG, on every runtime", async () => {
  const text = (url: string): string => Buffer.from(readDataUrl(url)).toString("latin1");
  // After fetch/data-urls of the web platform tests.
  const good: Record<string, string> = {
    "data:,X": "X",
    "data:": "refused",
    "data:text/html": "refused",
    "data:text/html    ;charset=x   ": "refused",
    "data:,": "",
    "data:,X#X": "X",
    "data:,%FF": "\xff",
    "data:text/plain,X": "X",
    "data:text/plain;Charset=UTF-8,%C2%B1": "\xc2\xb1",
    "data:text/html;charset=windows-1252,áñçə💩": Buffer.from("áñçə💩").toString("latin1"),
    "data:image/gif,%C2%B1": "\xc2\xb1",
    "data:unknown/unknown,%C2%B1": "\xc2\xb1",
    'data:text/html;a=",",X': '",X',
    "data:;base64,WA": "X",
    "data:x;base64,WA": "X",
    "data:x;base64=x,WA": "WA",
    "data:; base64,WA": "X",
    "data:;base64   ,WA": "X",
    "data:;base64;,WA": "WA",
    "data:;base64;x,WA": "WA",
    "data:;base 64,WA": "WA",
    "data:;BASe64,WA": "X",
    "data:;%62ase64,WA": "WA",
    "data:;base64,W%20A": "X",
    "data:;base64,W%0CA": "X",
    "data:;base64, WA==": "X",
    "data:;base64,W\tA\n=\r=": "X",
    " \n data:;base64,WA \u0000": "X",
    "DATA:;base64,WA": "X",
    "data:;base64,WA#b": "X",
    "data:;base64,": "",
    "data:;base64,WA=": "refused",
    "data:;base64,WA==": "X",
    "data:;base64,WA===": "refused",
    "data:;base64,=": "refused",
    "data:;base64,W": "refused",
    "data:;base64,W=A": "refused",
    "data:;base64,WB": "X",
    "data:;base64,W-8": "refused",
    "data:;base64,W_8": "refused",
    "data:;base64,W+8": "[\xef",
    "data:;base64,W%2B8": "[\xef",
    "data:;base64,*": "refused",
    "data:;base64,é": "refused",
    "data:,%": "%",
    "data:,%2": "%2",
    "data:,%zz%58": "%zzX",
    "data:,%25%32%35": "%25",
  };
  for (const [url, expected] of Object.entries(good)) {
    let found: string;
    try {
      found = text(url);
    } catch {
      found = "refused";
    }
    assert.equal(found, expected, JSON.stringify(url));
  }
  for (const url of [
    `data:image/png;base64, ${base64}`,
    `data:image/png;name=a;base64,${base64}`,
    new URL(`data:;base64,${base64}`),
  ]) {
    assert.deepEqual(await bytes(url), [...content], String(url));
  }
  assert.match(await refusal("data:image/png;base64,ab-_"), /base64url; write \+ for - and \/ for _/);
  assert.match(await refusal("data:image/png;base64,"), /it is empty/);
  assert.match(await refusal(`data:image/png;base64,${"A".repeat(90 << 20)}`), /larger than 64 MiB/);
  assert.match(await refusal(`data:image/png;base64,${"%41".repeat(68 << 20)}`), /larger than 64 MiB/);
  assert.equal(image(`data:image/png;base64,${base64}`).name, "data:image/png;base64,...");
  assert.equal(image(`data:image/png;name=SECRET;base64,${base64}`).name, "data:image/png;base64,...");
  assert.equal(image("data:,abc").name, "data:,...");
});

test("texts that are no source are refused shortly, with what to write instead", async () => {
  const long = base64.repeat(4000);
  const jpeg = Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe0]), Buffer.alloc(3000, 7)]).toString("base64");
  const cases: [unknown, RegExp][] = [
    [jpeg, /looks like base64 \(4008 characters\).*write "data:image\/jpeg;base64,\.\.\."/],
    [long, /looks like base64.*write "data:image\/png;base64,\.\.\."/],
    [Buffer.alloc(300, 99).toString("base64url"), /looks like base64/],
    [jpeg.replace(/.{76}/g, "$&\n"), /looks like base64/],
    [`image/jpeg;base64,${jpeg}`, /a data URL without its start; write "data:image\/jpeg;base64,\.\.\."/],
    [`image/svg+xml;charset=utf-8;base64,${jpeg}`, /write "data:image\/svg\+xml;base64/],
    ["", /the source is empty/],
    ["  \n", /the source is empty/],
    ["blob:http://localhost/3f1c", /a blob: address means something within its own program only; pass the Blob/],
    ["ftp://example.com/a.png", /ftp: addresses are not read/],
    ["s3://bucket/a.png", /s3: addresses are not read/],
    ["javascript:alert(1)", /javascript: addresses are not read/],
    ["C:\\Users\\me\\scene.png", process.platform === "win32" ? /no such file/ : /a path of Windows/],
    ["C:/Users/me/scene.png", process.platform === "win32" ? /no such file/ : /a path of Windows/],
    ["pictures\\scene.png", process.platform === "win32" ? /no such file/ : /a path of Windows/],
    ["none.png\n", /there is no such file/],
    ["a\0b.png", /a character that no path has/],
    ["x".repeat(3000), /looks like base64|path is too long/],
    [`${"x/".repeat(3000)}a.png`, /a path of 6005 characters/],
    [`${"long name ".repeat(100)}.png`, /the path is too long/],
    [`https://example.com/${"x".repeat(70_000)}`, /a URL of 70020 characters/],
    ["file://other-machine/a.png", /is no path here|no such file/],
    [content.join(), /no such file/],
  ];
  for (const [source, pattern] of cases) {
    const said = await refusal(source);
    assert.match(said, pattern);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none may come through
    assert.doesNotMatch(said, /[\u0000-\u001f]/);
  }
  const odd = join(folder, "shot:1 \u00e9.png");
  await writeFile(odd, content);
  assert.deepEqual(await bytes(odd), [...content]);
});

test("values that are no source are refused with what to write instead", async () => {
  const cases: [unknown, RegExp][] = [
    [null, /found null/],
    [undefined, /found undefined/],
    [7, /found 7/],
    [5n, /found 5n/],
    [Symbol("s"), /found a symbol/],
    [() => {}, /found a function|found the function/],
    [Promise.resolve(content), /await it first/],
    [new Response(content), /pass await response\.blob\(\)/],
    [new Blob([content]).stream(), /pass await new Response\(stream\)\.blob\(\)/],
    [[1, 2, 3], /Uint8Array\.from\(numbers\)/],
    [Buffer.from(content).toJSON(), /Uint8Array\.from\(it\.data\)/],
    [{ data: new Uint8ClampedArray(4), width: 1, height: 1 }, /pass its bytes/],
    [Object("scene.png"), /an instance of String/],
    [{ [Symbol.toStringTag]: "ArrayBuffer", byteLength: 8 }, /image\(\) takes a path/],
    [{ [Symbol.toStringTag]: "Blob" }, /image\(\) takes a path/],
    [new Map(), /an instance of Map/],
  ];
  for (const [source, pattern] of cases) assert.match(await refusal(source), pattern);
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  assert.match(await refusal(proxy), /cannot read the image/);
});

test("a blob is bounded by what comes, not by its size", async () => {
  let pulled = 0;
  const endless = {
    [Symbol.toStringTag]: "Blob",
    size: 0,
    stream: () =>
      new ReadableStream({
        pull(controller) {
          pulled += 1;
          controller.enqueue(new Uint8Array(1 << 20));
        },
      }),
  };
  assert.match(await refusal(endless), /larger than 64 MiB/);
  assert.ok(pulled < 70, String(pulled));
  const runtime = globalThis as { Bun?: { file(path: string): Blob } };
  if (runtime.Bun)
    assert.match(await refusal(runtime.Bun.file("/dev/zero")), /larger than 64 MiB|it is empty|permission denied/);
});
