//! The methods: one file each, and a line in the list.

mod adakv;
mod air_cache;
mod akvq_vl;
mod bf16;
mod cake;
mod chunkkv;
mod clla;
mod cskv;
mod custom;
mod elastic;
mod expected_attention;
mod fastv;
mod fp8;
mod full;
mod h2o;
mod head_kv;
mod int2;
mod int4;
mod int8;
mod keydiff;
mod kivi;
mod knorm;
mod kvquant;
mod kvsharer;
mod kvtuner;
mod kvzip;
mod lagkv;
mod look_m;
mod lorc;
mod merge;
mod minicache;
mod mixkv;
mod observed_attention;
mod parts;
mod prefixkv;
mod pyramid_infer;
mod pyramidkv;
mod random;
mod rkv;
mod skvq;
mod snapkv;
mod sparse_mm;
mod streaming;
mod tgvkv;
mod think;
mod tova;
mod turboquant;
mod vision_zip;
mod vl_cache;
mod zipvl;

use super::spec::MethodSpec;

/// Every method, in the order of the docs.
pub const METHODS: &[MethodSpec] = &[
    full::SPEC,
    prefixkv::SPEC,
    h2o::SPEC,
    snapkv::SPEC,
    pyramidkv::SPEC,
    adakv::SPEC,
    head_kv::SPEC,
    sparse_mm::SPEC,
    streaming::SPEC,
    knorm::SPEC,
    keydiff::SPEC,
    tova::SPEC,
    observed_attention::SPEC,
    expected_attention::SPEC,
    lagkv::SPEC,
    rkv::SPEC,
    chunkkv::SPEC,
    cake::SPEC,
    vl_cache::SPEC,
    tgvkv::SPEC,
    air_cache::SPEC,
    kvzip::SPEC,
    mixkv::SPEC,
    elastic::SPEC,
    look_m::SPEC,
    random::SPEC,
    fastv::SPEC,
    pyramid_infer::SPEC,
    vision_zip::SPEC,
    custom::SPEC,
    merge::SPEC,
    bf16::SPEC,
    fp8::SPEC,
    int8::SPEC,
    int4::SPEC,
    int2::SPEC,
    turboquant::SPEC,
    kivi::SPEC,
    akvq_vl::SPEC,
    zipvl::SPEC,
    kvtuner::SPEC,
    skvq::SPEC,
    think::SPEC,
    lorc::SPEC,
    cskv::SPEC,
    kvquant::SPEC,
    minicache::SPEC,
    clla::SPEC,
    kvsharer::SPEC,
];
