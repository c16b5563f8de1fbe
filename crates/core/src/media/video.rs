//! Videos: frames that somebody has taken from a film, and when each is shown. Nothing is sampled here: all frames are seen.

use std::cmp::Ordering;

use crate::error::Result;
use crate::fields::refuse;

/// Most frames of one video, and of one request: as many as the processors of Qwen3-VL take from a film.
pub const MOST_FRAMES: usize = 768;
/// Most bytes of the encoded frames of one video: 512 MiB.
pub const MAX_VIDEO_BYTES: u64 = 512 << 20;
/// The latest that a frame may be shown, in seconds: more than eleven days.
pub const MAX_SECONDS: f64 = 1e6;

/// The rate that transformers assumes of frames of which nothing is known.
const USUAL_FPS: f64 = 24.0;

/// When the frames of a video are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    times: Vec<f64>,
    fps: f64,
}

impl Timing {
    /// Of so many frames, `fps` of them a second or each at its own of the `times`, in seconds; 24 a second where neither is said.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for no frames or more than [`MOST_FRAMES`], for a rate that is not above 0, and for times that do not
    /// grow, are below 0 or past [`MAX_SECONDS`], or are not one for each frame.
    pub fn new(frames: usize, fps: Option<f64>, times: Option<Vec<f64>>) -> Result<Timing> {
        if frames == 0 {
            return Err(refuse("a video has no frames; give it one at least"));
        }
        if frames > MOST_FRAMES {
            return Err(refuse(format!(
                "a video has {frames} frames, over the limit of {MOST_FRAMES}; leave some out"
            )));
        }
        let (times, fps) = match (times, fps) {
            (Some(_), Some(_)) => return Err(refuse("a video has `fps` or `times`, found both")),
            (Some(times), None) => {
                if times.len() != frames {
                    let found = times.len();
                    return Err(refuse(format!("`times` of a video has {found} numbers for {frames} frames")));
                }
                let fps = match times[..] {
                    [first, .., last] => (frames - 1) as f64 / (last - first),
                    _ => USUAL_FPS,
                };
                (times, fps)
            }
            (None, fps) => {
                let fps = fps.unwrap_or(USUAL_FPS);
                if !(fps > 0.0 && fps.is_finite()) {
                    return Err(refuse(format!("`fps` of a video must be above 0, found {fps}")));
                }
                ((0..frames).map(|frame| frame as f64 / fps).collect(), fps)
            }
        };
        if let Some(at) = (1..frames).find(|at| times[*at - 1].partial_cmp(&times[*at]) != Some(Ordering::Less)) {
            return Err(refuse(format!(
                "the times of a video must grow, but frame {at} is shown at {} s and the one before it at {} s",
                times[at],
                times[at - 1]
            )));
        }
        if let Some(at) = (0..frames).find(|at| !(0.0..=MAX_SECONDS).contains(&times[*at])) {
            return Err(refuse(format!(
                "frame {at} of a video is shown at {} s; times are from 0 to {MAX_SECONDS} s",
                times[at]
            )));
        }
        Ok(Timing { times, fps })
    }

    /// When each frame is shown, in seconds, growing; one at least.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// Frames per second, on average.
    pub fn fps(&self) -> f64 {
        self.fps
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.times.len()
    }
}

/// Refuses a video whose encoded frames have more than [`MAX_VIDEO_BYTES`] together.
///
/// # Errors
/// [`Error::Option`](crate::Error::Option).
pub fn require_light(bytes: u64) -> Result<()> {
    if bytes > MAX_VIDEO_BYTES {
        return Err(refuse(format!(
            "the frames of a video have {bytes} bytes together, over the limit of {} MiB; compress them, or take fewer",
            MAX_VIDEO_BYTES >> 20
        )));
    }
    Ok(())
}

/// A video as far as it is known before its frames are decoded.
#[derive(Clone, Copy, Debug)]
pub struct Clip<'a> {
    /// Columns of each of its frames, in pixels.
    pub width: usize,
    /// Rows, in pixels.
    pub height: usize,
    pub timing: &'a Timing,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_shown_when_they_are_said_to_be() {
        let even = Timing::new(4, Some(2.0), None).unwrap();
        assert_eq!((even.times(), even.fps()), (&[0.0, 0.5, 1.0, 1.5][..], 2.0));
        let own = Timing::new(3, None, Some(vec![1.0, 2.0, 5.0])).unwrap();
        assert_eq!((own.times(), own.fps()), (&[1.0, 2.0, 5.0][..], 0.5));
        assert_eq!(Timing::new(2, None, None).unwrap().times(), [0.0, 1.0 / 24.0]);
        assert_eq!(Timing::new(1, None, Some(vec![9.0])).unwrap().fps(), 24.0);
    }

    #[test]
    fn other_times_are_refused() {
        let refused = |frames, fps, times: Option<Vec<f64>>, part: &str| {
            let error = Timing::new(frames, fps, times).unwrap_err();
            assert!(error.code() == "option" && error.to_string().contains(part), "{error}");
        };
        refused(0, None, None, "no frames");
        refused(769, None, None, "769 frames, over the limit of 768");
        refused(1, Some(1.0), Some(vec![0.0]), "found both");
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refused(2, Some(fps), None, "`fps` of a video must be above 0");
        }
        refused(2, None, Some(vec![0.0]), "1 numbers for 2 frames");
        refused(3, None, Some(vec![0.0, 2.0, 2.0]), "frame 2 is shown at 2 s and the one before it at 2 s");
        refused(2, None, Some(vec![0.0, f64::NAN]), "must grow");
        refused(2, None, Some(vec![-1.0, 2.0]), "frame 0 of a video is shown at -1 s");
        refused(2, Some(1e-9), None, "frame 1");
        refused(1, None, Some(vec![f64::NAN]), "frame 0");
        assert!(require_light(MAX_VIDEO_BYTES).is_ok());
        let error = require_light(MAX_VIDEO_BYTES + 1).unwrap_err();
        assert!(error.code() == "option" && error.to_string().contains("over the limit of 512 MiB"), "{error}");
    }
}
