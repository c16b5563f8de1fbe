// Sizes and offsets of the argument structs as the kernels see them.
#pragma once

#include <cstddef>

struct ShimField {
  const char* owner;
  const char* name;
  size_t offset;
};

#define SIZE(OWNER) {#OWNER, "", sizeof(OWNER)}
#define FIELD(OWNER, NAME) {#OWNER, #NAME, offsetof(OWNER, NAME)}

static const ShimField SHIM_FIELDS[] = {
    SIZE(Codec), FIELD(Codec, dtype), FIELD(Codec, axis), FIELD(Codec, group), FIELD(Codec, table),
    SIZE(Run), FIELD(Run, keys), FIELD(Run, key_scales), FIELD(Run, values), FIELD(Run, value_scales),
    FIELD(Run, start), FIELD(Run, len), FIELD(Run, capacity), FIELD(Run, unused), FIELD(Run, key), FIELD(Run, value),
    SIZE(GatherItem), FIELD(GatherItem, from), FIELD(GatherItem, to), FIELD(GatherItem, slots),
    FIELD(GatherItem, count), FIELD(GatherItem, capacity), FIELD(GatherItem, to_capacity), FIELD(GatherItem, at),
    FIELD(GatherItem, heads), FIELD(GatherItem, units),
    SIZE(GatherArgs), FIELD(GatherArgs, items),
    SIZE(MoveItem), FIELD(MoveItem, rows), FIELD(MoveItem, moves), FIELD(MoveItem, count), FIELD(MoveItem, capacity),
    FIELD(MoveItem, heads), FIELD(MoveItem, units),
    SIZE(MoveArgs), FIELD(MoveArgs, items), FIELD(MoveArgs, table),
    SIZE(NormItem), FIELD(NormItem, keys), FIELD(NormItem, scales), FIELD(NormItem, out), FIELD(NormItem, capacity),
    FIELD(NormItem, len), FIELD(NormItem, heads), FIELD(NormItem, unused), FIELD(NormItem, codec),
    SIZE(NormArgs), FIELD(NormArgs, items), FIELD(NormArgs, tables), FIELD(NormArgs, dim), FIELD(NormArgs, unused),
    SIZE(Source), FIELD(Source, numbers), FIELD(Source, scales), FIELD(Source, capacity), FIELD(Source, unused),
    FIELD(Source, codec),
    SIZE(EncodeItem), FIELD(EncodeItem, numbers), FIELD(EncodeItem, scales), FIELD(EncodeItem, sources),
    FIELD(EncodeItem, rows), FIELD(EncodeItem, count), FIELD(EncodeItem, capacity), FIELD(EncodeItem, at),
    FIELD(EncodeItem, heads), FIELD(EncodeItem, codec), FIELD(EncodeItem, clip), FIELD(EncodeItem, unused),
    SIZE(EncodeArgs), FIELD(EncodeArgs, items), FIELD(EncodeArgs, tables), FIELD(EncodeArgs, dim), FIELD(EncodeArgs, unused),
    SIZE(HadamardArgs), FIELD(HadamardArgs, from), FIELD(HadamardArgs, to), FIELD(HadamardArgs, from_stride),
    FIELD(HadamardArgs, to_stride), FIELD(HadamardArgs, n), FIELD(HadamardArgs, heads), FIELD(HadamardArgs, dim),
    FIELD(HadamardArgs, turned),
    SIZE(RotateArgs), FIELD(RotateArgs, rows), FIELD(RotateArgs, cosines), FIELD(RotateArgs, sines), FIELD(RotateArgs, out),
    FIELD(RotateArgs, stride), FIELD(RotateArgs, n), FIELD(RotateArgs, heads), FIELD(RotateArgs, dim),
    FIELD(RotateArgs, unused),
    SIZE(AppendItem), FIELD(AppendItem, keys), FIELD(AppendItem, values), FIELD(AppendItem, first_head),
    FIELD(AppendItem, heads), FIELD(AppendItem, capacity), FIELD(AppendItem, at), FIELD(AppendItem, first_row),
    FIELD(AppendItem, n), FIELD(AppendItem, key_dtype), FIELD(AppendItem, value_dtype), FIELD(AppendItem, key_transform),
    FIELD(AppendItem, value_transform),
    SIZE(AppendArgs), FIELD(AppendArgs, items), FIELD(AppendArgs, keys), FIELD(AppendArgs, values), FIELD(AppendArgs,
    cosines), FIELD(AppendArgs, sines), FIELD(AppendArgs, queries), FIELD(AppendArgs, rotated), FIELD(AppendArgs, key_stride),
    FIELD(AppendArgs, value_stride), FIELD(AppendArgs, query_stride), FIELD(AppendArgs, dim), FIELD(AppendArgs, count),
    FIELD(AppendArgs, rows), FIELD(AppendArgs, query_heads),
        SIZE(DecodeItem), FIELD(DecodeItem, dead), FIELD(DecodeItem, positions), FIELD(DecodeItem, queries), FIELD(DecodeItem,
    out), FIELD(DecodeItem, sums), FIELD(DecodeItem, weights), FIELD(DecodeItem, first_run), FIELD(DecodeItem, runs),
    FIELD(DecodeItem, heads), FIELD(DecodeItem, len), FIELD(DecodeItem, first), FIELD(DecodeItem, since), FIELD(DecodeItem,
    first_task), FIELD(DecodeItem, chunks), FIELD(DecodeItem, transform), FIELD(DecodeItem, marks),
        SIZE(DecodeArgs), FIELD(DecodeArgs, items), FIELD(DecodeArgs, runs), FIELD(DecodeArgs, positions), FIELD(DecodeArgs,
    dead), FIELD(DecodeArgs, queries), FIELD(DecodeArgs, out), FIELD(DecodeArgs, sums), FIELD(DecodeArgs, stats),
    FIELD(DecodeArgs, partials), FIELD(DecodeArgs, factors), FIELD(DecodeArgs, weights), FIELD(DecodeArgs, tables),
    FIELD(DecodeArgs, count), FIELD(DecodeArgs, dim), FIELD(DecodeArgs, group), FIELD(DecodeArgs, chunk), FIELD(DecodeArgs,
    scale), FIELD(DecodeArgs, softcap), FIELD(DecodeArgs, sets_sums), FIELD(DecodeArgs, format),
    SIZE(PrefillLane), FIELD(PrefillLane, dead), FIELD(PrefillLane, positions), FIELD(PrefillLane, starts),
    FIELD(PrefillLane, ends), FIELD(PrefillLane, sums), FIELD(PrefillLane, first_run),
    FIELD(PrefillLane, runs), FIELD(PrefillLane, first_head), FIELD(PrefillLane, len),
    SIZE(PrefillArgs), FIELD(PrefillArgs, queries), FIELD(PrefillArgs, lanes), FIELD(PrefillArgs, runs),
    FIELD(PrefillArgs, head_lanes), FIELD(PrefillArgs, out), FIELD(PrefillArgs, lse), FIELD(PrefillArgs, rows),
    FIELD(PrefillArgs, weights), FIELD(PrefillArgs, tables), FIELD(PrefillArgs, stride), FIELD(PrefillArgs, n), FIELD(PrefillArgs, query_heads),
    FIELD(PrefillArgs, group), FIELD(PrefillArgs, dim), FIELD(PrefillArgs, causal), FIELD(PrefillArgs, window),
    FIELD(PrefillArgs, listed), FIELD(PrefillArgs, scale), FIELD(PrefillArgs, softcap), FIELD(PrefillArgs, unused),
    SIZE(NormalizeArgs), FIELD(NormalizeArgs, x), FIELD(NormalizeArgs, weight), FIELD(NormalizeArgs, bias),
    FIELD(NormalizeArgs, out), FIELD(NormalizeArgs, x_stride), FIELD(NormalizeArgs, out_stride), FIELD(NormalizeArgs, n),
    FIELD(NormalizeArgs, together), FIELD(NormalizeArgs, width), FIELD(NormalizeArgs, eps), FIELD(NormalizeArgs, vectors),
    FIELD(NormalizeArgs, unused),
    SIZE(MapArgs), FIELD(MapArgs, x), FIELD(MapArgs, y), FIELD(MapArgs, out), FIELD(MapArgs, rows), FIELD(MapArgs, x_stride),
    FIELD(MapArgs, y_stride), FIELD(MapArgs, out_stride), FIELD(MapArgs, n), FIELD(MapArgs, width), FIELD(MapArgs, function),
    FIELD(MapArgs, vectors), FIELD(MapArgs, factor), FIELD(MapArgs, unused),
    SIZE(TakeArgs), FIELD(TakeArgs, map), FIELD(TakeArgs, rows),
    SIZE(ChooseArgs), FIELD(ChooseArgs, x), FIELD(ChooseArgs, out), FIELD(ChooseArgs, x_stride), FIELD(ChooseArgs, n),
    FIELD(ChooseArgs, width),
};

// Field `index`, or 1 behind the last.
extern "C" int shim_field(size_t index, const char** owner, const char** name, size_t* offset) {
  if (index >= sizeof SHIM_FIELDS / sizeof SHIM_FIELDS[0]) return 1;
  *owner = SHIM_FIELDS[index].owner;
  *name = SHIM_FIELDS[index].name;
  *offset = SHIM_FIELDS[index].offset;
  return 0;
}
