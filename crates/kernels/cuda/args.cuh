// Arguments that the host hands to the kernels. The Rust side is src/cuda/args.rs; the tests of crates/cuda-shim compare every size and
// offset of the two. Pointers are addresses on the device. Everything is written out, so that no byte is padding.
#pragma once

#include <stdint.h>

// How numbers are stored: the dtype, and in which direction they share scales. Twin: src/codec/mod.rs.
struct Codec {
  uint32_t dtype;
  uint32_t axis;
  // Entries (per channel) or channels (per entry) that share a scale and a zero.
  uint32_t group;
  // Of the launch's tables, from 1 on, the one that codes are looked up in; 0: codes are spaced evenly. With one there are no zeros.
  uint32_t table;
};

// Entries of a lane that lie one after another: the numbers of head h, entry e (of the lane) begin at number
// (h * capacity + e - start) * dim.
struct Run {
  const void* keys;
  const void* key_scales;
  const void* values;
  const void* value_scales;
  uint32_t start;
  uint32_t len;
  uint32_t capacity;
  uint32_t unused;
  Codec key;
  Codec value;
};

// Rows of any contents: those of a part of a segment.
struct GatherItem {
  const void* from;
  void* to;
  const uint32_t* slots;
  uint32_t count;
  uint32_t capacity;
  uint32_t to_capacity;
  uint32_t at;
  uint32_t heads;
  // Of a row, in the width that the kernel copies.
  uint32_t units;
};

struct GatherArgs {
  const GatherItem* items;
};

struct MoveItem {
  void* rows;
  // Bytes from MoveArgs.table to [count, 2] numbers: from, to.
  uint64_t moves;
  uint32_t count;
  uint32_t capacity;
  uint32_t heads;
  // Of a row, in the width that the kernel copies.
  uint32_t units;
};

struct MoveArgs {
  const MoveItem* items;
  const uint8_t* table;
};

struct NormItem {
  const void* keys;
  const void* scales;
  float* out;
  uint32_t capacity;
  uint32_t len;
  uint32_t heads;
  uint32_t unused;
  Codec codec;
};

struct NormArgs {
  const NormItem* items;
  const float* tables;
  uint32_t dim;
  uint32_t unused;
};

// Keys, or values, of a segment that rows are read from.
struct Source {
  const void* numbers;
  const void* scales;
  uint32_t capacity;
  uint32_t unused;
  Codec codec;
};

// One part (keys or values) of a segment that is written from rows that are stored elsewhere.
struct EncodeItem {
  void* numbers;
  void* scales;
  const Source* sources;
  // [count, 2]: which source, and the slot there.
  const uint32_t* rows;
  uint32_t count;
  uint32_t capacity;
  uint32_t at;
  uint32_t heads;
  Codec codec;
  // The part of the range that evenly spaced codes cover.
  float clip;
  uint32_t unused;
};

struct EncodeArgs {
  const EncodeItem* items;
  const float* tables;
  uint32_t dim;
  uint32_t unused;
};

struct HadamardArgs {
  const float* from;
  // May be `from`.
  float* to;
  uint64_t from_stride;
  uint64_t to_stride;
  uint32_t n;
  uint32_t heads;
  uint32_t dim;
  // TURNED_FIRST or TURNED_LAST, or 0.
  uint32_t turned;
};

struct RotateArgs {
  const void* rows;
  const float* cosines;
  const float* sines;
  float* out;
  uint64_t stride;
  uint32_t n;
  uint32_t heads;
  uint32_t dim;
  uint32_t unused;
};

struct AppendItem {
  void* keys;
  void* values;
  uint32_t first_head;
  uint32_t heads;
  uint32_t capacity;
  uint32_t at;
  uint32_t first_row;
  uint32_t n;
  uint32_t key_dtype;
  uint32_t value_dtype;
  // 0 for none.
  uint32_t key_transform;
  uint32_t value_transform;
};

struct AppendArgs {
  const AppendItem* items;
  const void* keys;
  const void* values;
  // Null: keys are stored as they are.
  const float* cosines;
  const float* sines;
  // Null: there are none to rotate.
  const void* queries;
  float* rotated;
  uint64_t key_stride;
  uint64_t value_stride;
  uint64_t query_stride;
  uint32_t dim;
  // Items; the blocks behind them rotate.
  uint32_t count;
  // Of queries.
  uint32_t rows;
  uint32_t query_heads;
};

// Marks of a DecodeItem.
constexpr uint32_t MARK_DEAD = 1;
constexpr uint32_t MARK_POSITIONS = 2;
constexpr uint32_t MARK_SUMS = 4;
constexpr uint32_t MARK_WHOLE = 8;

// Places are counted in elements from those of the launch.
struct DecodeItem {
  // Where MARK_DEAD is not set, all entries count.
  uint64_t dead;
  // Where MARK_POSITIONS is not set, no entry from `first` on is before `since`.
  uint64_t positions;
  uint64_t queries;
  uint64_t out;
  // Where MARK_SUMS is not set, nobody asked.
  uint64_t sums;
  // Where the item's part of DecodeArgs.weights starts; used with sums.
  uint64_t weights;
  uint32_t first_run;
  uint32_t runs;
  uint32_t heads;
  uint32_t len;
  // The first entry that counts.
  uint32_t first;
  // The first position that counts.
  uint32_t since;
  uint32_t first_task;
  // Tasks per head.
  uint32_t chunks;
  // The transform of the lane's values, which the results are brought back from; 0 for none.
  uint32_t transform;
  uint32_t marks;
};

struct DecodeArgs {
  const DecodeItem* items;
  const Run* runs;
  const uint32_t* positions;
  const uint8_t* dead;
  // Addresses; 0 where the items have whole ones, in elements.
  uint64_t queries;
  uint64_t out;
  uint64_t sums;
  float* stats;
  float* partials;
  float* factors;
  float* weights;
  const float* tables;
  // Items.
  uint32_t count;
  uint32_t dim;
  uint32_t group;
  // Entries per task.
  uint32_t chunk;
  // Of the scores, times log2(e).
  float scale;
  // Of the scores, times log2(e); 0: none.
  float softcap;
  // Not 0: sums are set, those of entries that are not seen to 0. 0: they are added to.
  uint32_t sets_sums;
  // Of the results: 0 f32, 1 f16, 2 bf16.
  uint32_t format;
};

struct PrefillLane {
  // Null: all entries count.
  const uint8_t* dead;
  // Both null: no window.
  const uint32_t* positions;
  // The first entry that a block of queries may see.
  const uint32_t* starts;
  // How many of the last n entries each query sees. Null: those up to its own.
  const uint32_t* ends;
  float* sums;
  uint32_t first_run;
  uint32_t runs;
  // The first KV head of the lane among those of the layer.
  uint32_t first_head;
  uint32_t len;
};

struct PrefillArgs {
  const float* queries;
  const PrefillLane* lanes;
  const Run* runs;
  // The lane of each KV head.
  const uint32_t* head_lanes;
  float* out;
  // Null: not saved.
  float* lse;
  const uint32_t* rows;
  const float* weights;
  const float* tables;
  uint64_t stride;
  uint32_t n;
  uint32_t query_heads;
  // Query heads per KV head.
  uint32_t group;
  uint32_t dim;
  uint32_t causal;
  // Positions that a query sees; used where a lane has positions.
  uint32_t window;
  // Elements of rows and weights.
  uint32_t listed;
  // Of the scores, times log2(e).
  float scale;
  // Of the scores, times log2(e); 0: none.
  float softcap;
  uint32_t unused;
};

struct NormalizeArgs {
  const float* x;
  const float* weight;
  // Null for rms_norm.
  const float* bias;
  void* out;
  // Elements from the first of `together` rows, which lie one behind the other, to the next first.
  uint64_t x_stride;
  uint64_t out_stride;
  uint32_t n;
  uint32_t together;
  uint32_t width;
  float eps;
  // Not 0: all rows start at addresses aligned to four elements.
  uint32_t vectors;
  uint32_t unused;
};

struct MapArgs {
  const void* x;
  // The second operand; null where there is none.
  const float* y;
  void* out;
  // The row of x for each of out; null: the same.
  const uint32_t* rows;
  uint64_t x_stride;
  uint64_t y_stride;
  uint64_t out_stride;
  uint32_t n;
  uint32_t width;
  uint32_t function;
  // Not 0: all rows start at addresses aligned to four elements.
  uint32_t vectors;
  float factor;
  uint32_t unused;
};

struct TakeArgs {
  // Without rows.
  MapArgs map;
  uint32_t rows[64];
};

struct ChooseArgs {
  const float* x;
  // [n, 2].
  uint32_t* out;
  uint64_t x_stride;
  uint32_t n;
  uint32_t width;
};

static_assert(sizeof(Codec) == 16, "Codec");
static_assert(sizeof(Run) == 80, "Run");
static_assert(sizeof(GatherItem) == 48, "GatherItem");
static_assert(sizeof(GatherArgs) == 8, "GatherArgs");
static_assert(sizeof(MoveItem) == 32, "MoveItem");
static_assert(sizeof(MoveArgs) == 16, "MoveArgs");
static_assert(sizeof(NormItem) == 56, "NormItem");
static_assert(sizeof(NormArgs) == 24, "NormArgs");
static_assert(sizeof(Source) == 40, "Source");
static_assert(sizeof(EncodeItem) == 72, "EncodeItem");
static_assert(sizeof(EncodeArgs) == 24, "EncodeArgs");
static_assert(sizeof(HadamardArgs) == 48, "HadamardArgs");
static_assert(sizeof(RotateArgs) == 56, "RotateArgs");
static_assert(sizeof(AppendItem) == 56, "AppendItem");
static_assert(sizeof(AppendArgs) == 96, "AppendArgs");
static_assert(sizeof(DecodeItem) == 88, "DecodeItem");
static_assert(sizeof(DecodeArgs) == 128, "DecodeArgs");
static_assert(sizeof(PrefillLane) == 56, "PrefillLane");
static_assert(sizeof(PrefillArgs) == 120, "PrefillArgs");
static_assert(sizeof(NormalizeArgs) == 72, "NormalizeArgs");
static_assert(sizeof(MapArgs) == 80, "MapArgs");
static_assert(sizeof(TakeArgs) == 336, "TakeArgs");
static_assert(sizeof(ChooseArgs) == 32, "ChooseArgs");
