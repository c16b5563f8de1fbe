//! The methods: one file each, and a line in the list.

mod adakv;
mod akvq_vl;
mod bf16;
mod cskv;
mod custom;
mod fastv;
mod fp8;
mod full;
mod h2o;
mod int2;
mod int4;
mod int8;
mod keydiff;
mod kivi;
mod knorm;
mod kvquant;
mod kvsharer;
mod kvtuner;
mod lorc;
mod merge;
mod minicache;
mod parts;
mod prefixkv;
mod pyramidkv;
mod random;
mod skvq;
mod snapkv;
mod streaming;
mod think;
mod turboquant;
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
    streaming::SPEC,
    knorm::SPEC,
    keydiff::SPEC,
    random::SPEC,
    fastv::SPEC,
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
    kvsharer::SPEC,
];
