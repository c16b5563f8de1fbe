"""The C ABI (docs/c-abi.md) through ctypes: a library, a model, and the events of a request with the time at which each came."""

import ctypes
import json
import os
import threading
import time
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint32

from parts import NotRun

ABI_VERSION = 2
END, REFUSED = -1, -3
HANDLE = POINTER(c_uint32)
OUT = [c_char_p, c_size_t, POINTER(c_uint32)]
SIGNATURES = {
    "pkv_about": OUT,
    "pkv_open": [c_char_p, c_size_t, HANDLE, *OUT],
    "pkv_loading": [c_uint32, HANDLE, *OUT],
    "pkv_submit": [c_uint32, c_char_p, c_size_t, POINTER(c_char_p), POINTER(c_size_t), c_size_t, HANDLE, *OUT],
    "pkv_next": [c_uint32, c_uint32, *OUT],
    "pkv_cancel": [c_uint32],
    "pkv_close": [c_uint32, HANDLE, *OUT],
    "pkv_release": [c_uint32],
}
# Libraries of before it had come lack it.
CHECK_DEVICE = "pkv_check_device"


class EngineError(Exception):
    """An error that the library returns; `code` is stable."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]


class Library:
    def __init__(self, path):
        try:
            self.functions = ctypes.CDLL(path)
        except OSError as error:
            raise RuntimeError(f"the library cannot be opened: {error}") from None
        for name, parameters in SIGNATURES.items():
            self._declare(name, parameters)
        self.functions.pkv_abi_version.restype = c_uint32
        found = self.functions.pkv_abi_version()
        if found != ABI_VERSION:
            raise RuntimeError(f"the library has version {found} of the ABI, this program needs {ABI_VERSION}")

    def _declare(self, name, parameters):
        function = getattr(self.functions, name, None)
        if function is None:
            raise RuntimeError(f"the library has no `{name}`: it is no libprefixkv")
        function.argtypes, function.restype = parameters, c_int32

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
            if status <= REFUSED:
                raise EngineError(json.loads(text) if text else {"code": f"status {status}", "message": name})
            return status, text

    def handle(self, name, *arguments):
        handle = c_uint32()
        self.call(name, *arguments, byref(handle))
        return handle.value

    def about(self):
        return json.loads(self.call("pkv_about")[1])

    def need(self, device):
        about = self.about()
        if device not in about["devices"]:
            raise NotRun(f"the library has no {device}: {about.get('noGpu') or 'its devices are the CPU only'}")

    def can_check(self):
        return hasattr(self.functions, CHECK_DEVICE)

    def check_device(self, request):
        """The last event of a device's own check."""
        self._declare(CHECK_DEVICE, SIGNATURES["pkv_open"])
        text = json.dumps(request).encode()
        return list(self.events(self.handle(CHECK_DEVICE, text, len(text))))[-1][1]

    def events(self, ticket):
        """Every event of a ticket, as `(seconds of the monotonic clock, event)`."""
        try:
            while True:
                status, text = self.call("pkv_next", ticket, 1000)
                if status == END:
                    return
                now = time.monotonic()
                for event in json.loads(text or "[]"):
                    if event["type"] == "error":
                        raise EngineError(event["error"])
                    yield now, event
        finally:
            self.functions.pkv_release(ticket)


class Model:
    """A loaded model. `refused` says why the load went without `batch`, where it was asked for; else None."""

    def __init__(self, library, folder, **options):
        self.library, self.refused = library, None
        request = {"source": os.path.abspath(folder), **options}
        start = time.monotonic()
        try:
            self._open(request)
        except EngineError as error:
            if "batch" not in request or error.code != "option" or "`batch`" not in str(error):
                raise
            self.refused = str(error)
            del request["batch"]
            self._open(request)
        self.batch = request.get("batch", 1)
        self.load_seconds = time.monotonic() - start

    def _open(self, request):
        text = json.dumps(request).encode()
        self.engine = self.library.handle("pkv_open", text, len(text))
        try:
            for _, event in self.library.events(self.library.handle("pkv_loading", self.engine)):
                if event["type"] == "loaded":
                    self.info = event["info"]
        except BaseException:
            self.close()
            raise

    def submit(self, request, images=()):
        """The ticket of a request."""
        count = len(images)
        text = json.dumps(request).encode()
        arrays = (c_char_p * count)(*images), (c_size_t * count)(*map(len, images))
        return self.library.handle("pkv_submit", self.engine, text, len(text), *arrays, count)

    def ask(self, request, images=()):
        """The last event of a request."""
        return list(self.library.events(self.submit(request, images)))[-1][1]

    def pool(self):
        """Bytes of the pool from which the model allocates on its device; None on the CPU."""
        return self.ask({"op": "memory"}).get("pool")

    def ask_all(self, requests, during=None):
        """
        Submits `(request, images)` pairs at once and reads each ticket on a thread of its own, since a ticket that nobody reads
        holds the engine up. Gives a list of `(time, event)` per request; `during(index, time, event)` hears of each as it comes.
        """
        heard, errors = [[] for _ in requests], []

        def read(index, ticket):
            try:
                for now, event in self.library.events(ticket):
                    heard[index].append((now, event))
                    if during:
                        during(index, now, event)
            except Exception as error:
                errors.append(error)

        threads = []
        for index, (request, images) in enumerate(requests):
            ticket = self.submit(request, images)
            threads.append(threading.Thread(target=read, args=(index, ticket), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return heard

    def close(self):
        for _ in self.library.events(self.library.handle("pkv_close", self.engine)):
            pass
        self.library.functions.pkv_release(self.engine)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
