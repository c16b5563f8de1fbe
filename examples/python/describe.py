"""Describes a picture through the C ABI, with the standard library only: describe.py LIBRARY MODEL PICTURE [QUESTION]

LIBRARY is native/capi/libprefixkv.so (.dylib, .dll).
"""

import ctypes
import json
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint32

ABI_VERSION = 2
END, TOO_SMALL = -1, -2
HANDLE = POINTER(c_uint32)
OUT = [ctypes.c_char_p, c_size_t, POINTER(c_uint32)]
SIGNATURES = {
    "pkv_open": [c_char_p, c_size_t, HANDLE, *OUT],
    "pkv_loading": [c_uint32, HANDLE, *OUT],
    "pkv_submit": [c_uint32, c_char_p, c_size_t, POINTER(c_char_p), POINTER(c_size_t), c_size_t, HANDLE, *OUT],
    "pkv_next": [c_uint32, c_uint32, *OUT],
    "pkv_cancel": [c_uint32],
    "pkv_close": [c_uint32, HANDLE, *OUT],
    "pkv_release": [c_uint32],
}


class PrefixKvError(Exception):
    """`code` is stable; see docs/c-abi.md."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.details = error["details"]


class Library:
    def __init__(self, path):
        self.functions = ctypes.CDLL(path)
        for name, parameters in SIGNATURES.items():
            function = getattr(self.functions, name)
            function.argtypes, function.restype = parameters, c_int32
        self.functions.pkv_abi_version.restype = c_uint32
        found = self.functions.pkv_abi_version()
        if found != ABI_VERSION:
            raise RuntimeError(f"the library has version {found} of the ABI, this program needs {ABI_VERSION}")

    def call(self, name, *arguments):
        """The status of a call and its text, in as much room as it needs."""
        capacity, size = 1 << 16, c_uint32()
        while True:
            out = ctypes.create_string_buffer(capacity)
            status = getattr(self.functions, name)(*arguments, out, capacity, byref(size))
            if size.value > capacity:
                capacity = size.value
                continue
            text = out.raw[: size.value].decode()
            if status < 0 and status != END:
                raise PrefixKvError(json.loads(text))
            return status, text

    def handle(self, name, *arguments):
        handle = c_uint32()
        self.call(name, *arguments, byref(handle))
        return handle.value

    def events(self, ticket):
        """Every event of a ticket. ctypes lets other threads run while it waits."""
        try:
            while True:
                status, text = self.call("pkv_next", ticket, 1000)
                if status == END:
                    return
                for event in json.loads(text or "[]"):
                    if event["type"] == "error":
                        raise PrefixKvError(event["error"])
                    yield event
        finally:
            self.functions.pkv_release(ticket)


class Model:
    def __init__(self, library, **options):
        self.library = library
        request = json.dumps(options).encode()
        self.engine = library.handle("pkv_open", request, len(request))
        try:
            for event in library.events(library.handle("pkv_loading", self.engine)):
                if event["type"] == "loaded":
                    self.info = event["info"]
        except BaseException:
            self.close()
            raise

    def submit(self, request, images=()):
        """The events of a request."""
        count = len(images)
        text = json.dumps(request).encode()
        arrays = (c_char_p * count)(*images), (c_size_t * count)(*map(len, images))
        return self.library.events(
            self.library.handle("pkv_submit", self.engine, text, len(text), *arrays, count)
        )

    def close(self):
        for _ in self.library.events(self.library.handle("pkv_close", self.engine)):
            pass
        self.library.functions.pkv_release(self.engine)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main(path, source, picture, question="Describe the image in detail."):
    with open(picture, "rb") as file:
        image = file.read()
    content = [{"type": "image", "index": 0}, {"type": "text", "text": question}]
    request = {"op": "generate", "maxTokens": 256, "messages": [{"role": "user", "content": content}]}
    with Model(Library(path), source=os.path.abspath(source)) as model:
        text = ""
        for event in model.submit(request, [image]):
            if event["type"] == "token":
                text += event["text"]
                print(event["text"], end="", flush=True)
            elif event["type"] == "done":
                print(event["text"][len(text) :])
                milliseconds = event["timings"]["decode"] / max(1, len(event["tokens"]) - 1)
                print(f"{len(event['tokens'])} tokens, {milliseconds:.2f} ms each", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
