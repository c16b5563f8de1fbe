/* Written by `cargo xtask gen` from crates/capi/src; edit that instead. */

/*
 * The C ABI of prefixkv. docs/c-abi.md has the whole story; in short:
 *
 * - A handle is a uint32_t, never 0, and is given back once with pkv_release.
 * - Texts go in with their length and need no zero at the end; they are copied before a call returns.
 * - `out`, `capacity`, `size`: a text comes out into a buffer of the caller's, without a zero at the end, with its size in *size.
 *   When it does not fit, nothing but *size is written. `out` may be null with a capacity of 0; `size` may be null.
 * - A result below 0 other than PKV_END and PKV_TOO_SMALL comes with a text { "code", "message", "details" }. A call that has
 *   failed has changed nothing but the handle's place, which holds 0.
 * - Every function may be called from any thread at any time. None waits, but pkv_next when asked to.
 */

#ifndef PREFIXKV_H
#define PREFIXKV_H

#include <stddef.h>
#include <stdint.h>

/* Version of the ABI that this header describes; pkv_abi_version() gives the library's. */
#define PKV_ABI_VERSION 2

/* Done; of pkv_next: nothing yet. */
#define PKV_OK 0

/* The stream has ended and everything was read. */
#define PKV_END (-1)

/* The text does not fit; *size says how much room it needs. Nothing is lost: call again. */
#define PKV_TOO_SMALL (-2)

/* The engine refuses; the text says why. */
#define PKV_REFUSED (-3)

/* No such handle: never given, released, or of another kind. */
#define PKV_STALE (-4)

/* A pointer, a length or a text cannot be right. */
#define PKV_INVALID (-5)

/* Another thread is in pkv_next with this ticket. */
#define PKV_BUSY (-6)

/* A defect of the library, caught; the text says where. Please report it. */
#define PKV_PANIC (-7)

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The version of the ABI that the library has; compare it with PKV_ABI_VERSION before anything else.
 */
uint32_t pkv_abi_version(void);

/*
 * Writes what this build can do on this machine, a JSON object: version, errorCodes, architectures, devices, cpu, threads; and
 * `live`, what is alive in this process: models, sessions, requests, cacheBytes, and layersRun, rowsRun, rowsShared and pairsRun, which only grow.
 */
int32_t pkv_about(char *out, size_t capacity, uint32_t *size);

/*
 * Starts an engine that loads a model on a thread of its own, and returns at once; pkv_loading tells how it goes. `json` is
 * an object with `source`, an absolute path of a folder in the Hugging Face layout, and perhaps device, weights, threads,
 * batch, cacheLimit, and closeWithThread, which closes the model when the calling thread ends.
 */
int32_t pkv_open(const char *json, size_t json_length, uint32_t *engine, char *out, size_t capacity, uint32_t *size);

/*
 * Reads the configuration of the model folder in `{ "source": DIR }`, without its weights. The ticket ends with an event
 * `inspected` or `error`.
 */
int32_t pkv_inspect(const char *json, size_t json_length, uint32_t *ticket, char *out, size_t capacity, uint32_t *size);

/*
 * Compares the kernels of the GPU in `{ "device": "cuda:0", "ceilings": true }` with those of the CPU and, if asked for, measures what
 * it can do. `"cases": "small"` leaves the large shapes out, for tools that watch every access. The ticket gives events `progress` and ends with `checked` or `error`.
 */
int32_t pkv_check_device(
    const char *json,
    size_t json_length,
    uint32_t *ticket,
    char *out,
    size_t capacity,
    uint32_t *size);

/*
 * A ticket of the load: events `progress`, then `loaded` or `error`. Cancelling it stops the load.
 */
int32_t pkv_loading(uint32_t engine, uint32_t *ticket, char *out, size_t capacity, uint32_t *size);

/*
 * Queues a request. `images` and `lengths` are two arrays of `count` entries, the bytes of the encoded pictures and their
 * number; both may be null when `count` is 0. Everything is copied before the call returns.
 */
int32_t pkv_submit(
    uint32_t engine,
    const char *json,
    size_t json_length,
    const uint8_t *const *images,
    const size_t *lengths,
    size_t count,
    uint32_t *ticket,
    char *out,
    size_t capacity,
    uint32_t *size);

/*
 * Takes all ready events, as one JSON array, and returns its size in bytes; 0 when there is none yet, PKV_END after the
 * last. With a timeout it waits for the first event, at most for so many milliseconds. One call at a time per ticket.
 */
int32_t pkv_next(uint32_t ticket, uint32_t timeout_ms, char *out, size_t capacity, uint32_t *size);

/*
 * Asks the work of a ticket to stop. Queued events can still be read; the stream ends soon after, with an event `error` of
 * code `aborted`, or `done` with finish `aborted` once there is text.
 */
int32_t pkv_cancel(uint32_t ticket);

/*
 * Stops intake, ends all work with errors of code `disposed` and frees the model; then the ticket says `closed`. Can be
 * repeated. The handle stays valid until it is released.
 */
int32_t pkv_close(uint32_t engine, uint32_t *ticket, char *out, size_t capacity, uint32_t *size);

/*
 * Gives a handle back: a ticket is cancelled, an engine closes itself without waiting. Every handle needs it, once.
 */
int32_t pkv_release(uint32_t handle);

#ifdef __cplusplus
}
#endif

#endif
