//! Models: one folder per family. A family knows its configuration and its weights; it never owns a cache.
//!
//! Adding one: a folder with a [`Family`] and a line in [`families`].

mod anyres;
mod clip;
mod config;
mod counter;
mod encoder;
mod features;
mod fit;
mod gemma3;
mod gguf;
mod idefics3;
mod images;
mod info;
mod inputs;
mod internvl;
mod llama;
mod llava;
mod llava_next;
mod llava_onevision;
mod network;
mod numbers;
mod options;
mod patches;
mod placeholder;
mod placing;
mod prompt;
mod qwen_vl;
mod rows;
mod seeing;
mod siglip;
mod source;
mod videos;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use prefixkv_kernels::attention::AttentionParams;

pub use crate::device::{Device, DeviceMemory, DevicePool, GpuMemory, Place};
#[doc(hidden)]
pub use crate::device::{StandIn, stand_in};
pub use crate::weights::WeightFormat;
pub use config::ConfigFile;
pub use counter::{Asked, ImageCounter, ImageTokens, PieceTokens};
pub use features::Features;
pub use images::{ImagePlan, ImageProcessor, Images, PlanPart, SizeOf, image_processor};
pub use info::{ImageInfo, ModelInfo};
pub use inputs::Inputs;
pub use network::{Family, Network, Seen};
pub use options::{LoadOptions, Progress, Vision};
pub use prompt::Prompt;
pub use videos::{VideoMark, VideoProcessor, video_architectures};

use crate::backend::{Activations, Backend};
use crate::cache::{Format, Pool, Shape};
pub use crate::check::Check;
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::method::Method;
use crate::method::budget::ModelKey;
use crate::method::directions::{Aspect, Directions, Projection, Projections};
use crate::nn::{Loader, Matrix};
use crate::sequence::{BatchItem, Layout, Pass, Sequence};
use crate::text::{ChatTemplate, Tokenizer};
use crate::weights::gguf::Origin;
use source::Source;

/// The outcome of a step for one sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// Those of the next token, `[vocab]`, all finite.
    Logits(Vec<f32>),
    /// The next token that has the greatest logit, the lowest of equals; all logits are finite.
    Likeliest(u32),
}

/// Stands between a prompt and its repetition, as in KVzip's published code.
const INSTRUCTION: &str = "\n\nRepeat the previous context exactly.";

/// Every family that loads.
fn families<B: Backend>() -> [Family<B>; 8] {
    [
        llava::family(),
        llava_next::family(),
        llava_onevision::family(),
        idefics3::family(),
        qwen_vl::family(),
        internvl::family(),
        gemma3::family(),
        llama::family(),
    ]
}

/// The `architectures` entries that load.
pub fn architectures() -> Vec<&'static str> {
    families::<Cpu>().iter().flat_map(|family| family.architectures).copied().collect()
}

/// The architecture of a config.json that names none.
fn implied(model_type: &str) -> Option<&'static str> {
    families::<Cpu>().iter().find_map(|family| (family.implied)(model_type))
}

/// Errors about files name no families, because the readers of files know none.
fn with_known(error: Error) -> Error {
    match error {
        Error::UnsupportedModel { reason, known } if known.is_empty() => {
            Error::UnsupportedModel { reason, known: architectures() }
        }
        other => other,
    }
}

fn family<B: Backend>(config: &ConfigFile) -> Result<Family<B>> {
    let architecture = config.architecture()?;
    families().into_iter().find(|family| family.architectures.contains(&architecture)).ok_or_else(|| {
        Error::UnsupportedModel {
            reason: format!("architecture `{architecture}` is not known; known are {}", architectures().join(", ")),
            known: architectures(),
        }
    })
}

/// A prompt that is read in pieces.
pub struct Prefill<B: Backend> {
    /// Its positions.
    x: Inputs<B>,
    /// Positions that are through all layers.
    done: usize,
    /// Most positions of a piece.
    most: usize,
}

/// A model ready to run: network, tokenizer, template and image processor.
pub struct Model<B: Backend = Cpu> {
    info: ModelInfo,
    network: Box<dyn Network<B>>,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    image_processor: Option<Arc<dyn ImageProcessor>>,
    eos_tokens: Vec<u32>,
    pool: Pool<B::Memory>,
    layout: Arc<Layout>,
    backend: B,
    /// The files that are mapped.
    mapped: Vec<Arc<Origin>>,
    /// Where keys and values lie, of each aspect that was asked for.
    directions: Mutex<Vec<(Aspect, Arc<Directions>)>>,
}

impl<B: Backend> Projections for Model<B> {
    fn directions(&self, aspect: Aspect) -> Result<Arc<Directions>> {
        // Others who ask wait: what they want is on its way.
        let mut known = self.directions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, directions)) = known.iter().find(|(of, _)| *of == aspect) {
            return Ok(directions.clone());
        }
        let directions = Arc::new(self.find_directions(aspect)?);
        known.push((aspect, directions.clone()));
        Ok(directions)
    }
}

impl Model {
    /// Loads the folder `options.source` on the CPU. An error from `progress` stops the load and is returned.
    pub fn load(options: &LoadOptions, progress: &mut dyn FnMut(Progress) -> Result<()>) -> Result<Model> {
        Model::load_on(Cpu, options, progress)
    }

    /// The contents of a folder or of GGUF files, from configuration and weight headers; no weights are read. With the positions of a picture
    /// or of a video, if one is asked for.
    pub fn inspect(dir: &Path, vision: &Vision, picture: Option<&Asked>) -> Result<ModelInfo> {
        let inspect = || {
            let source = Source::open(dir, vision)?;
            let mut info = Model::describe(&source)?;
            if let (Some(image), Some(asked)) = (&mut info.image, picture) {
                let counter = ImageCounter::of(&source)?;
                image.picture = counter.map(|counter| counter.count_asked(asked)).transpose()?;
            }
            Ok(info)
        };
        inspect().map_err(with_known)
    }

    fn describe(source: &Source) -> Result<ModelInfo> {
        let config = &source.config;
        let family = family::<Cpu>(config)?;
        source.require_readable()?;
        let shape = (family.inspect)(config)?;
        let checkpoint = source.checkpoint(false)?;
        let vision = family.vision.iter().map(|prefix| checkpoint.parameters_under(prefix)).sum();
        let (weights, tally) = (source.weights(WeightFormat::Stored), Default::default());
        ModelInfo::new(config, shape.as_ref(), Some(&checkpoint), weights, tally, weights.bytes(vision), Cpu.name())
    }
}

impl<B: Backend> Model<B> {
    /// As [`Model::load`], on a device that is there.
    pub fn load_on(
        backend: B,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Model<B>> {
        Model::read_on(backend, options, progress).map_err(with_known)
    }

    fn read_on(
        backend: B,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress) -> Result<()>,
    ) -> Result<Model<B>> {
        let dir = &options.source;
        let source = Source::open(dir, &options.vision)?;
        let weights = source.weights(options.weights);
        fit::require_changeable("`rotateValues`", options.rotate_values, weights)?;
        fit::require_changeable("`adapter`", !options.adapters.is_empty(), weights)?;
        let backend = backend.with_weights(weights)?;
        let config = &source.config;
        let family = family(config)?;
        source.require_readable()?;
        let described = (family.inspect)(config)?;
        let tokenizer = Arc::new(source.tokenizer()?);
        let template = source.template(&tokenizer, described.images())?;
        let image_processor = described.images().map(|images| images.processor(&source.settings())).transpose()?;
        let mut checkpoint = source.checkpoint(options.map)?;
        for adapter in &options.adapters {
            checkpoint = checkpoint.adapted(adapter, &described.layouts())?;
        }
        let total = checkpoint.bytes(weights);
        fit::require(total, weights, &backend)?;
        progress(Progress { stage: "weights", done: 0, total })?;
        let loader = Loader::new(&checkpoint, weights, backend.clone()).rotating(options.rotate_values);
        let network: Box<dyn Network<B>> = (family.load)(config, &loader, &mut |done| {
            progress(Progress { stage: "weights", done: done.min(total), total })
        })
        .map_err(|error| fit::of_load(error, weights, &backend))?;
        fit::require_rotated(options.rotate_values, network.rotates_values())?;
        progress(Progress { stage: "weights", done: total, total })?;
        let pool = Pool::on(backend.memory(), options.cache_limit.unwrap_or(u64::MAX));
        let layout = Arc::new(
            Layout::new(network.layers()).with_folded(network.rotates_values()).with_blocks(network.has_blocks()),
        );
        let eos_tokens = config.eos_tokens(tokenizer.eos_id())?;
        let tally = loader.tally();
        let vision = network.vision_bytes();
        let mut info =
            ModelInfo::new(config, network.as_ref(), Some(&checkpoint), weights, tally, vision, backend.name())?;
        info.adapters = options.adapters.iter().map(|dir| dir.display().to_string()).collect();
        checkpoint.require_unchanged()?;
        let is_mapped = options.map && weights == WeightFormat::Stored;
        let mapped = source.files().filter(|_| is_mapped).flat_map(|file| file.origins()).cloned().collect();
        let directions = Mutex::default();
        Ok(Model {
            info,
            network,
            tokenizer,
            template,
            image_processor,
            eos_tokens,
            pool,
            layout,
            backend,
            mapped,
            directions,
        })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The attention of each layer of the language model.
    pub fn attention(&self) -> Vec<AttentionParams> {
        self.network.attention()
    }

    /// Tokens that end an answer.
    pub fn eos_tokens(&self) -> &[u32] {
        &self.eos_tokens
    }

    /// Positions the model was made for.
    pub fn max_positions(&self) -> usize {
        self.info.max_positions
    }

    /// The pool that all sequences of this model draw on.
    pub fn pool(&self) -> &Pool<B::Memory> {
        &self.pool
    }

    /// The number format of its cache.
    pub fn cache_format(&self) -> Format {
        self.network.shape().cache.format
    }

    /// Runs the prompt and returns the logits of its last position, `[vocab]`, all of them finite.
    ///
    /// # Errors
    /// [`Error::Numbers`] when the model computes NaN or infinity, or what the cache's format cannot hold.
    pub fn prefill(
        &self,
        prompt: &Prompt,
        features: &[Features<B>],
        sequence: &mut Sequence<B::Memory>,
        check: Check<'_>,
    ) -> Result<Vec<f32>> {
        in_pool(|| {
            let hidden = self.run_prompt(prompt, features, sequence, check)?;
            let last = hidden.narrow(hidden.rows() - 1, 1)?;
            let logits = self.network.logits(&last)?.to_vec()?;
            numbers::require_finite("logits", &logits, self.info.weights)?;
            Ok(logits)
        })
    }

    /// Like [`Model::prefill`], with the logits of every position, `[positions, vocab]`: for tests and analysis.
    pub fn prefill_all(
        &self,
        prompt: &Prompt,
        features: &[Features<B>],
        sequence: &mut Sequence<B::Memory>,
        check: Check<'_>,
    ) -> Result<Matrix<B>> {
        in_pool(|| {
            let hidden = self.run_prompt(prompt, features, sequence, check)?;
            self.network.logits(&hidden)
        })
    }

    /// Like [`Model::prefill`], with the hidden states of every position behind the last norm, `[positions, hidden]` in one list, all of
    /// them finite; of positions whose way ends between layers there are none.
    pub fn hidden(
        &self,
        prompt: &Prompt,
        features: &[Features<B>],
        sequence: &mut Sequence<B::Memory>,
        check: Check<'_>,
    ) -> Result<Vec<f32>> {
        in_pool(|| {
            let hidden = self.run_prompt(prompt, features, sequence, check)?;
            let hidden = self.network.normed(&hidden)?.to_vec()?;
            numbers::require_finite("hidden states", &hidden, self.info.weights)?;
            Ok(hidden)
        })
    }

    /// Begins to read a prompt in pieces of at most `most` positions, so that other work can go on between them:
    /// [`Model::prefill_piece`]. The method decides once, about the whole prompt; until then all of it is held. On the CPU the logits and the
    /// entries are those of [`Model::prefill`] to the bit when `most` is 192 or more; sums of attention over queries of several pieces,
    /// and everything on a GPU, are so but for the order in which f32 numbers are added. Where the positions of an image see each other, a
    /// piece has whole images, and `most` positions only if they fit; then too numbers are added in another order.
    pub fn begin_prefill(
        &self,
        prompt: &Prompt,
        features: &[Features<B>],
        sequence: &mut Sequence<B::Memory>,
        most: usize,
    ) -> Result<Prefill<B>> {
        in_pool(|| {
            features::shown(prompt, features, sequence.pictures().is_some())?;
            let x = self.inputs(prompt, features)?;
            sequence.begin_cut_prompt(&prompt.spans, &prompt.placing)?;
            Ok(Prefill { x, done: 0, most })
        })
    }

    /// Reads the next piece of a prompt. After the last one gives the logits of the last position, as [`Model::prefill`] does. An error
    /// leaves a sequence that refuses further work.
    pub fn prefill_piece(
        &self,
        prefill: &mut Prefill<B>,
        sequence: &mut Sequence<B::Memory>,
        check: Check<'_>,
    ) -> Result<Option<Vec<f32>>> {
        in_pool(|| {
            check()?;
            let left = prefill.x.len() - prefill.done;
            let piece = sequence.whole_piece(rows::next(left, prefill.most));
            sequence.begin_piece(piece)?;
            let x = prefill.x.narrow(prefill.done, piece)?;
            let hidden = self.network.forward(x, &mut Pass::Prompt(sequence), check)?;
            sequence.finish_piece()?;
            prefill.done += piece;
            if piece < left {
                return Ok(None);
            }
            sequence.finish_prompt()?;
            self.give_back()?;
            let logits = self.network.logits(&hidden.narrow(piece - 1, 1)?)?.to_vec()?;
            numbers::require_finite("logits", &logits, self.info.weights)?;
            Ok(Some(logits))
        })
    }

    fn run_prompt(
        &self,
        prompt: &Prompt,
        features: &[Features<B>],
        sequence: &mut Sequence<B::Memory>,
        check: Check<'_>,
    ) -> Result<Matrix<B>> {
        let shown = features::shown(prompt, features, sequence.pictures().is_some())?;
        let x = self.inputs(prompt, features)?;
        let n = x.len();
        let x = match sequence.repeats(n) {
            Some(repeat) => self.repeated(x, prompt, repeat, sequence.reach(n))?,
            None => x,
        };
        sequence.begin_prompt(&prompt.spans, &prompt.placing)?;
        sequence.see_images(shown)?;
        let hidden = self.network.forward(x, &mut Pass::Prompt(sequence), check)?;
        sequence.finish_prompt()?;
        self.give_back()?;
        if sequence.wants_repeats() { hidden.narrow(0, n) } else { Ok(hidden) }
    }

    /// The tokens between a prompt and its repetition.
    fn instruction(&self) -> Result<Vec<u32>> {
        self.tokenizer.encode(INSTRUCTION, false)
    }

    /// Runs one generated token and returns the logits of the next, `[vocab]`.
    pub fn decode(&self, token: u32, sequence: &mut Sequence<B::Memory>) -> Result<Vec<f32>> {
        let mut decoded = self.decode_batch(&[token], &mut [sequence])?;
        decoded.pop().unwrap_or_else(|| Err(Error::Internal("a step without a sequence".into())))
    }

    /// Runs one generated token of each sequence, all together: weights are read once for all. Gives the logits of the next
    /// token of each, `[vocab]`, or what has failed for that sequence alone; an error of the whole leaves all of them in the middle
    /// of their work, if it had begun: they refuse to go on. On the CPU and with dense weights, up to
    /// [`FEW`](crate::backend::cpu::FEW) sequences get the bits of each alone; otherwise the last bits may differ.
    pub fn decode_batch(
        &self,
        tokens: &[u32],
        sequences: &mut [&mut Sequence<B::Memory>],
    ) -> Result<Vec<Result<Vec<f32>>>> {
        let decoded = self.decode_step(tokens, sequences, false)?;
        let logits = |decoded: Decoded| match decoded {
            Decoded::Logits(logits) => Ok(logits),
            Decoded::Likeliest(_) => Err(Error::Internal("a token in place of logits".into())),
        };
        Ok(decoded.into_iter().map(|decoded| decoded.and_then(logits)).collect())
    }

    /// As [`Model::decode_batch`]. With `likeliest` the device itself may look for the likeliest token of each sequence, the lowest of equals,
    /// and its logits stay where they are.
    pub fn decode_step(
        &self,
        tokens: &[u32],
        sequences: &mut [&mut Sequence<B::Memory>],
        likeliest: bool,
    ) -> Result<Vec<Result<Decoded>>> {
        if tokens.len() != sequences.len() || tokens.is_empty() {
            return Err(Error::Internal(format!("{} tokens for {} sequences", tokens.len(), sequences.len())));
        }
        in_pool(|| {
            self.require_file()?;
            let x = Inputs::text(self.network.embed(tokens)?);
            let mut members: Vec<BatchItem<'_, B::Memory>> =
                sequences.iter_mut().map(|sequence| BatchItem::new(sequence)).collect();
            members.iter_mut().for_each(|member| member.attempt(Sequence::begin_step));
            let hidden = self.network.forward(x, &mut Pass::Step(&mut members), &|| Ok(()))?;
            // Before the sequences are whole again: without their logits they cannot go on.
            let logits = self.network.logits(&hidden)?;
            let greatest = if likeliest { self.backend.greatest(&logits)? } else { None };
            // Rows of sequences that have failed may hold anything.
            let whole = greatest
                .filter(|rows| rows.iter().zip(&members).all(|(row, member)| row.is_some() || member.failed.is_some()));
            let logits = if whole.is_some() { Vec::new() } else { logits.to_vec()? };
            members.iter_mut().for_each(|member| member.attempt(Sequence::finish_step));
            if let Some(rows) = whole {
                let each = members.into_iter().zip(rows).map(|(member, row)| match (member.failed, row) {
                    (Some(error), _) => Err(error),
                    (None, Some(token)) => Ok(Decoded::Likeliest(token)),
                    (None, None) => Err(Error::Internal("a row without a likeliest token".into())),
                });
                return Ok(each.collect());
            }
            // Those of one sequence stay where they are.
            let rows = match tokens.len() {
                1 => vec![logits],
                n => logits.chunks_exact(logits.len() / n).map(<[f32]>::to_vec).collect(),
            };
            let each = members.into_iter().zip(rows).map(|(member, logits)| match member.failed {
                Some(error) => Err(error),
                None => {
                    let finite = numbers::require_finite("logits", &logits, self.info.weights);
                    finite.map(|()| Decoded::Logits(logits))
                }
            });
            Ok(each.collect())
        })
    }

    /// The device's count of its memory, for all processes that use it.
    ///
    /// # Errors
    /// [`Error::Device`] when the device does not answer.
    pub fn device_memory(&self) -> Result<DeviceMemory> {
        self.backend.device_memory()
    }

    /// Gives memory of the device that nothing uses any more back to it.
    pub fn give_back(&self) -> Result<()> {
        self.backend.trim()
    }

    /// An empty sequence with the plain full cache.
    pub fn new_sequence(&self) -> Result<Sequence<B::Memory>> {
        self.new_sequence_with(None, false)
    }

    /// An empty sequence whose size a method decides. `carry` keeps what further prompts on it need.
    pub fn new_sequence_with(&self, method: Option<Arc<Method>>, carry: bool) -> Result<Sequence<B::Memory>> {
        let shape = self.network.shape().cache;
        if let Some(method) = &method {
            let key =
                |layers| ModelKey { shape: Shape { layers, ..shape }, fingerprint: self.info.fingerprint.clone() };
            method.check_model(&key(self.layout.managed().len()))?;
            let whole = key(shape.layers);
            method.sharing().map_or(Ok(()), |sharing| sharing.check_model(&whole))?;
            if let Some(store) = method.store() {
                store.check_model(&whole)?;
                store.prepare(self)?;
            }
        }
        let mut sequence = Sequence::with_layout(shape, self.layout.clone(), &self.pool, method, carry)?;
        if sequence.wants_repeats() {
            sequence.set_instruction(self.instruction()?.len());
        }
        Ok(sequence)
    }

    /// The weights that make the keys and values of a layer; None for a layer that reads those of another. Refuses a model of which they do
    /// not say where keys lie.
    pub(crate) fn projection(&self, layer: usize) -> Result<Option<Projection>> {
        self.network.projection(layer)
    }

    fn find_directions(&self, aspect: Aspect) -> Result<Directions> {
        let shape = self.network.shape().cache;
        in_pool(|| {
            Directions::find((shape.layers, shape.kv_heads, shape.head_dim), aspect, |layer| {
                self.network.projection(layer)
            })
        })
    }

    /// Errors when the file whose blocks are in use was written to: a cut one would end the process, another one give other numbers.
    pub(super) fn require_file(&self) -> Result<()> {
        self.mapped.iter().try_for_each(|file| file.require_same())
    }
}

/// Runs `work` on a thread of the pool. From outside, each parallel loop would wake the pool and wait for it: that costs tens
/// of microseconds, and a decode step has five loops per layer.
fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}
