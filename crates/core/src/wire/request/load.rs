//! Requests to a door before there is an engine: to load, to inspect, to check a device.

use std::path::PathBuf;

use prefixkv_kernels::cuda::check::Cases;

use super::parse;
use super::parts::{
    AdapterFields, AskedPicture, CheckCases, CheckFields, EngineOptions, OwnerFields, PictureFields, SourceFields,
    TowerFile,
};
use crate::device::Device;
use crate::error::Result;
use crate::fields::{Fields, Parts, refuse};
use crate::model::{Asked, LoadOptions, Vision, WeightFormat};
use crate::weights::MAX_ADAPTERS;

/// Requests that a door takes beside those of an engine.
#[derive(Debug)]
pub struct Door {
    pub name: &'static str,
    /// The lines of its documentation.
    pub docs: &'static [&'static str],
    /// The names of the structs that its fields are declared in.
    pub parts: &'static [&'static str],
    /// The names of its fields.
    pub fields: fn() -> Vec<&'static str>,
}

macro_rules! doors {
    ($($(#[doc = $doc:literal])* $name:literal as $alias:ident ($($part:ident),*);)*) => {
        /// Everything that a door takes beside the requests of an engine.
        pub const DOORS: &[Door] = &[$(Door {
            name: $name,
            docs: &[$($doc),*],
            parts: &[$(stringify!($part)),*],
            fields: <$alias as Parts>::names,
        }),*];

        $(type $alias = ($($part,)*);)*
    };
}

doors! {
    /// Loads a model: `progress` events, then `loaded`.
    "load" as Load (SourceFields, AdapterFields, EngineOptions, OwnerFields);
    /// Reads a model folder's configuration without loading weights; ends with `inspected`.
    "inspect" as Inspect (SourceFields, AskedPicture);
    /// Compares the kernels of a GPU with those of the CPU: `progress` events, then `checked`.
    "check" as Check (CheckFields);
}

/// How several requests share a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Most requests that are decoded together.
    pub batch: usize,
    /// Most positions of a prompt that are read between two steps of others; None reads each prompt whole.
    pub prefill_chunk: Option<usize>,
    /// Most bytes of prompts' beginnings that are kept for later requests.
    pub prefix_cache: u64,
}

/// [`Batching::prefill_chunk`] where a load does not say.
const PREFILL_CHUNK: usize = 512;

/// A model folder to load.
#[derive(Debug)]
pub struct LoadRequest {
    pub options: LoadOptions,
    pub device: Device,
    pub batching: Batching,
    /// Size of the process-wide pools.
    pub threads: Option<usize>,
    /// Whether the model is closed when the thread that opens it ends.
    pub close_with_thread: bool,
}

impl LoadRequest {
    /// Reads the JSON of a load.
    pub fn parse(json: &str) -> Result<LoadRequest> {
        let (source, AdapterFields { adapters }, options, owner): Load = Fields::parts(parse(json)?, "load", &[])?;
        let EngineOptions {
            device,
            weights,
            map,
            threads,
            batch,
            prefill_chunk,
            cache_limit,
            prefix_cache,
            rotate_values,
        } = options;
        Ok(LoadRequest {
            options: LoadOptions {
                vision: tower(source.vision)?,
                source: absolute("source", source.source)?,
                adapters: adapters_of(adapters)?,
                weights: weights.unwrap_or(WeightFormat::Stored),
                cache_limit: cache_limit.map(|limit| limit.0),
                rotate_values,
                map: map.unwrap_or(true),
            },
            device: device.unwrap_or(Device::Auto),
            batching: Batching {
                batch: batch.map_or(1, |batch| batch.0),
                prefill_chunk: Some(prefill_chunk.map_or(PREFILL_CHUNK, |chunk| chunk.0)).filter(|chunk| *chunk > 0),
                prefix_cache: prefix_cache.map_or(0, |bytes| bytes.0),
            },
            threads: threads.map(|threads| threads.0),
            close_with_thread: owner.close_with_thread,
        })
    }
}

/// A model to inspect.
#[derive(Debug)]
pub(crate) struct InspectRequest {
    pub(crate) source: PathBuf,
    pub(crate) vision: Vision,
    /// A picture or a video whose positions are to be counted.
    pub(crate) picture: Option<Asked>,
}

/// Reads the JSON of an inspection.
pub(crate) fn parse_inspect(json: &str) -> Result<InspectRequest> {
    let (source, asked): Inspect = Fields::parts(parse(json)?, "inspect", &[])?;
    let picture = asked.picture.map(PictureFields::asked).transpose()?;
    Ok(InspectRequest { vision: tower(source.vision)?, source: absolute("source", source.source)?, picture })
}

pub(super) fn absolute(name: &str, path: PathBuf) -> Result<PathBuf> {
    match path.is_absolute() {
        true => Ok(path),
        false => Err(refuse(format!("`{name}` must be an absolute path, found `{}`", path.display()))),
    }
}

fn tower(asked: Option<TowerFile>) -> Result<Vision> {
    Ok(match asked {
        None => Vision::Beside,
        Some(TowerFile(None)) => Vision::None,
        Some(TowerFile(Some(path))) => Vision::File(absolute("vision", path)?),
    })
}

fn adapters_of(folders: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    if folders.len() > MAX_ADAPTERS {
        return Err(refuse(format!("`adapters` has {} folders, expected {MAX_ADAPTERS} at most", folders.len())));
    }
    folders.into_iter().map(|folder| absolute("adapters", folder)).collect()
}

/// A device to check.
#[derive(Debug)]
pub struct CheckRequest {
    pub device: Device,
    /// Whether to measure what the device can do.
    pub ceilings: bool,
    pub cases: Cases,
}

impl CheckRequest {
    /// Reads the JSON of a check.
    pub fn parse(json: &str) -> Result<CheckRequest> {
        let (CheckFields { device, ceilings, cases },): Check = Fields::parts(parse(json)?, "check", &[])?;
        let cases = match cases.unwrap_or(CheckCases::All) {
            CheckCases::All => Cases::All,
            CheckCases::Small => Cases::Small,
        };
        Ok(CheckRequest { device, ceilings, cases })
    }
}
