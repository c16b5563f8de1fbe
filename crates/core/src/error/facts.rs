//! Facts of every error code: one entry per variant, and a variant without one does not compile.

use super::Error;

/// A code with what a user of it wants to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    pub code: &'static str,
    /// The class in TypeScript.
    pub class: &'static str,
    /// When it is raised.
    pub cause: &'static str,
    /// How to fix it.
    pub cure: &'static str,
    /// The fields of `details` with their meanings.
    pub details: &'static [(&'static str, &'static str)],
}

macro_rules! facts {
    ($($pattern:pat => $code:literal as $class:literal { $($field:literal: $meaning:literal),* $(,)? } $cause:literal; $cure:literal;)*) => {
        /// Every code, in the order of the variants.
        pub const FACTS: &[Facts] = &[$(Facts {
            code: $code,
            class: $class,
            cause: $cause,
            cure: $cure,
            details: &[$(($field, $meaning)),*],
        }),*];

        impl Error {
            /// The stable, machine-readable name of this kind of error; one of [`Error::CODES`].
            pub fn code(&self) -> &'static str {
                match self {
                    $($pattern => $code,)*
                }
            }
        }
    };
}

facts! {
    Error::ModelNotFound { .. } => "model-not-found" as "ModelError" {
        "path": "the folder or file that is not there",
    }
        "A model folder, or a file that it must contain, is not there.";
        "Check the path; download the missing file from the model's repository into the folder.";
    Error::ModelFile { .. } => "model-file" as "ModelError" {
        "path": "the file",
    }
        "A file of the model is there but cannot be used: broken JSON, truncated weights, shapes that do not match config.json.";
        "Download the file again; the message says what is wrong in it.";
    Error::UnsupportedModel { .. } => "unsupported-model" as "UnsupportedModelError" {
        "known": "what is implemented",
    }
        "The architecture, or a feature that config.json asks for, is not implemented.";
        "Take a model of an architecture in `details.known`.";
    Error::Numbers { .. } => "numbers" as "ModelError" {
        "fits": "the `weights` that can hold the numbers; empty where none is known to help",
    }
        "Weights, keys or values that the asked format cannot hold, or a result that is NaN or infinite.";
        "Load with `weights` of `details.fits`. If that is empty, the model computes NaN or infinity even in f32: take another revision of it.";
    Error::Image { .. } => "image" as "MediaError" {
        "index": "the place of the image among those of the request, from 0; from the engine only",
        "source": "the name of the image; from TypeScript only",
    }
        "An image cannot be read, fetched or decoded, or passes a limit: 64 MiB, 100 megapixels, 32,768 pixels a side.";
        "Give a whole PNG, JPEG, WebP or GIF file; scale a large image down first.";
    Error::Option { .. } => "option" as "OptionError" {
        "suggestion": "the nearest known name, or null",
        "option": "the place of the value, such as `stop[2]`; from TypeScript only",
    }
        "An option is unknown, of the wrong type or out of range.";
        "Correct the option that the message names.";
    Error::Prompt { .. } => "prompt" as "PromptError" {}
        "The prompt cannot be built: the chat template refuses the messages or takes too long, or the images and placeholders of a raw prompt differ in number.";
        "Correct the messages; in a raw prompt, give one image for each placeholder.";
    Error::ContextOverflow { .. } => "context-overflow" as "ContextOverflowError" {
        "needed": "positions that the request needs",
        "available": "positions that the model has",
        "imageTokens": "how many of the needed ones are image tokens",
    }
        "The prompt and the asked tokens do not fit the model's positions. Raised before any work.";
        "Shorten the prompt, use fewer images or lower `maxTokens`.";
    Error::OutOfMemory { .. } => "out-of-memory" as "OutOfMemoryError" {
        "needed": "bytes that are needed",
        "available": "bytes that there are",
    }
        "The weights do not fit the machine's memory, or the cache would pass `cacheLimit`: raised before allocating. Or a GPU has become full: the \
         request ends, the model can be used.";
        "Load with smaller `weights`, raise `cacheLimit`, use a smaller `keep`, a smaller `batch` or a shorter prompt.";
    Error::Budget { .. } => "budget" as "BudgetError" {
        "asked": "the asked size, a `Keep`",
        "least": "the least size that works for this prompt, in the same terms",
    }
        "The asked size of the cache does not hold the entries that its method protects.";
        "Ask for at least `error.least`, or let the method protect less.";
    Error::Calibration { .. } => "calibration" as "CalibrationError" {}
        "A calibration cannot be found or read, belongs to another model, or does not hold the asked size.";
        "Calibrate this model for this size with `model.calibrate`, or leave the calibration out.";
    Error::Plan { .. } => "plan" as "PlanError" {}
        "The `plan` of a custom method has thrown, or answered with what cannot be carried out: numbers out of range or out of order, more than `keep` allows.";
        "Correct the method; the message says what was wrong, and `error.cause` is what it has thrown. The model and its chats go on.";
    Error::Snapshot { .. } => "snapshot" as "SnapshotError" {
        "path": "the file",
        "problem": "`missing`, `io`, `no-snapshot`, `version`, `truncated`, `corrupt`, `too-large` or `other-model`",
    }
        "A snapshot of a prefix cannot be written, or cannot be read: it is not there, cut, changed, of a newer version, or of another model than the one \
         that is to read it.";
        "Save it again from the model, weights and options that are to read it.";
    Error::Device { .. } => "device" as "DeviceError" {
        "device": "the asked device",
        "attempts": "the files that were tried for the build for CUDA, with the reasons; from TypeScript only",
    }
        "The asked device does not exist in this build or on this machine, or a GPU has failed in the middle of the work.";
        "Use `cpu` or `auto`; [cuda.md](cuda.md) has what a GPU needs. After a failure the message says whether to start the process again.";
    Error::Aborted => "aborted" as "AbortError" {
        "partial": "the text that had been generated; from TypeScript only",
    }
        "The caller's signal stopped the work.";
        "Nothing, if that was meant; `error.cause` is the signal's reason.";
    Error::Disposed => "disposed" as "DisposedError" {}
        "The model was disposed before or during the request.";
        "Load the model again, or dispose of it after its last request.";
    Error::Internal(_) => "internal" as "NativeError" {}
        "A defect of this library. The model can still be used.";
        "Report it with the message and what led to it.";
}

impl Error {
    /// All codes, in the order of the variants.
    pub const CODES: [&'static str; FACTS.len()] = {
        let mut codes = [""; FACTS.len()];
        let mut index = 0;
        while index < codes.len() {
            codes[index] = FACTS[index].code;
            index += 1;
        }
        codes
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::Keep;

    fn samples() -> Vec<Error> {
        let text = String::new;
        vec![
            Error::ModelNotFound { path: "a".into(), reason: text() },
            Error::ModelFile { path: "a".into(), reason: text() },
            Error::UnsupportedModel { reason: text(), known: vec![] },
            Error::Numbers { reason: text(), fits: vec![] },
            Error::Image { index: 0, reason: text() },
            Error::Option { reason: text(), suggestion: None },
            Error::Prompt { reason: text() },
            Error::ContextOverflow { needed: 2, available: 1, image_tokens: 0 },
            Error::OutOfMemory { needed: 2, available: 1, advice: text() },
            Error::Budget { asked: Keep::Tokens(1), least: Keep::Tokens(2), reason: text() },
            Error::Calibration { reason: text() },
            Error::Plan { reason: text() },
            Error::Snapshot { path: "a".into(), problem: "corrupt", reason: text() },
            Error::Device { device: text(), reason: text() },
            Error::Aborted,
            Error::Disposed,
            Error::Internal(text()),
        ]
    }

    #[test]
    fn codes_are_told_apart_and_details_are_documented() {
        let codes: Vec<&str> = samples().iter().map(Error::code).collect();
        assert_eq!(codes, Error::CODES);
        for (error, facts) in samples().iter().zip(FACTS) {
            let details = error.details();
            let found: Vec<&String> = details.keys().collect();
            let engine = |meaning: &str| !meaning.ends_with("from TypeScript only");
            let documented: Vec<&str> =
                facts.details.iter().filter(|(_, meaning)| engine(meaning)).map(|(name, _)| *name).collect();
            assert_eq!(found, documented, "{}", facts.code);
        }
    }
}
