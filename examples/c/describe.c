/*
 * Describes a picture through the C ABI: describe MODEL PICTURE [QUESTION]
 *
 * Prints the events as JSON, one array per line, as they come; a program would hand them to its JSON library.
 * Build it with: cc describe.c -I crates/capi/include -L native/capi -lprefixkv -Wl,-rpath,$PWD/native/capi
 */
#include <prefixkv.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where texts come out. It grows when one does not fit. */
static char *text;
static size_t capacity = 4096;
static uint32_t size;

static void fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vfprintf(stderr, format, values);
  va_end(values);
  fputc('\n', stderr);
  exit(1);
}

static void *allocate(void *old, size_t bytes) {
  void *memory = realloc(old, bytes);
  if (memory == NULL) fail("no memory for %zu bytes", bytes);
  return memory;
}

static void must(const char *call, int32_t status) {
  if (status != PKV_OK) fail("%s: status %d: %.*s", call, (int)status, size <= capacity ? (int)size : 0, text);
}

/* Prints what a ticket has to say, until it ends; returns whether an event says so. */
static int print_events(uint32_t ticket, const char *wanted) {
  int found = 0;
  for (;;) {
    int32_t status = pkv_next(ticket, 1000, text, capacity, &size);
    if (status == PKV_END) break;
    if (status == PKV_TOO_SMALL) {
      capacity = size;
      text = allocate(text, capacity + 1);
    } else if (status > 0) {
      text[status] = '\0';
      puts(text);
      found = found || strstr(text, wanted) != NULL;
    } else {
      must("pkv_next", status);
    }
  }
  must("pkv_release", pkv_release(ticket));
  return found;
}

/* A text as a JSON string. */
static char *quoted(const char *value) {
  char *out = allocate(NULL, 6 * strlen(value) + 3), *end = out;
  *end++ = '"';
  for (; *value != '\0'; value++) {
    if ((unsigned char)*value < 0x20) {
      end += sprintf(end, "\\u%04x", (unsigned)*value);
      continue;
    }
    if (*value == '"' || *value == '\\') *end++ = '\\';
    *end++ = *value;
  }
  strcpy(end, "\"");
  return out;
}

static uint8_t *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  uint8_t *bytes = NULL;
  size_t room = 0;
  *length = 0;
  if (file == NULL) fail("cannot open %s", path);
  do {
    room += 1 << 16;
    bytes = allocate(bytes, room);
    *length += fread(bytes + *length, 1, room - *length, file);
  } while (*length == room);
  fclose(file);
  return bytes;
}

int main(int argc, char **argv) {
  if (argc < 3) fail("usage: describe MODEL PICTURE [QUESTION]");
  if (pkv_abi_version() != PKV_ABI_VERSION) fail("the library has version %u of the ABI", (unsigned)pkv_abi_version());
  text = allocate(NULL, capacity + 1);

  char *source = quoted(argv[1]);
  char *json = allocate(NULL, strlen(source) + 32);
  uint32_t engine, ticket;
  sprintf(json, "{\"source\":%s}", source);
  must("pkv_open", pkv_open(json, strlen(json), &engine, text, capacity, &size));
  must("pkv_loading", pkv_loading(engine, &ticket, text, capacity, &size));
  if (!print_events(ticket, "\"type\":\"loaded\"")) fail("the model was not loaded");

  size_t length;
  uint8_t *picture = read_file(argv[2], &length);
  const uint8_t *const images[] = {picture};
  char *question = quoted(argc > 3 ? argv[3] : "Describe the image in detail.");
  char *request = allocate(NULL, strlen(question) + 256);
  sprintf(request,
          "{\"op\":\"generate\",\"maxTokens\":256,\"messages\":[{\"role\":\"user\",\"content\":["
          "{\"type\":\"image\",\"index\":0},{\"type\":\"text\",\"text\":%s}]}]}",
          question);
  must("pkv_submit",
       pkv_submit(engine, request, strlen(request), images, &length, 1, &ticket, text, capacity, &size));
  int done = print_events(ticket, "\"type\":\"done\"");

  must("pkv_close", pkv_close(engine, &ticket, text, capacity, &size));
  print_events(ticket, "\"type\":\"closed\"");
  must("pkv_release", pkv_release(engine));
  free(source), free(json), free(picture), free(question), free(request), free(text);
  return done ? 0 : 1;
}
