//! Decoding the pictures of requests within bounds, for the whole process.

use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use super::ticket::Events;
use crate::error::Result;
use crate::media::{Clip, Prepared, decode, decoding_bytes, upright_size};
use crate::model::{ImageProcessor, VideoProcessor};

/// Bytes that decoders may take at a time, over all models of the process. A picture that alone takes more is decoded alone.
pub(super) const BUDGET: u64 = 1 << 30;

/// How long an engine waits for others before it looks whether its request is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);

static TAKEN: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// Bytes of the budget; given back when dropped.
struct Share(u64);

impl Share {
    /// Waits until there is room. Never called by a thread of the pool, which might hold up the very work that it waits for.
    fn take(bytes: u64, events: &Events) -> Result<Share> {
        let bytes = bytes.min(BUDGET);
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken + bytes > BUDGET {
            taken = GIVEN_BACK.wait_timeout(taken, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
            events.check()?;
        }
        *taken += bytes;
        Ok(Share(bytes))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}

/// Decodes and prepares those of `images` that are `wanted`, as many at a time as the budget holds, and gives them to `see`, run by run.
pub(super) fn process<I: AsRef<[u8]> + Sync>(
    processor: &dyn ImageProcessor,
    images: &[I],
    wanted: &[usize],
    events: &Events,
    mut see: impl FnMut(&[Prepared]) -> Result<()>,
) -> Result<()> {
    let size = |&index: &usize| -> Result<u64> {
        let bytes = images[index].as_ref();
        let (width, height) = upright_size(bytes, index)?;
        Ok(decoding_bytes(bytes, index)? + processor.bytes(width, height))
    };
    let sizes: Vec<u64> = wanted.iter().map(size).collect::<Result<_>>()?;
    for wave in waves(&sizes, BUDGET) {
        let prepared = {
            let _share = Share::take(sizes[wave.clone()].iter().sum(), events)?;
            let prepare = |place: usize| {
                events.check()?;
                let index = wanted[place];
                processor.process(images[index].as_ref(), index)
            };
            wave.into_par_iter().map(prepare).collect::<Vec<Result<Prepared>>>()
        };
        see(&prepared.into_iter().collect::<Result<Vec<Prepared>>>()?)?;
    }
    Ok(())
}

/// Decodes and prepares a group of the frames of a video, one after the other.
pub(super) fn frames<I: AsRef<[u8]>>(
    processor: &dyn VideoProcessor,
    images: &[I],
    group: Range<usize>,
    clip: &Clip<'_>,
    events: &Events,
) -> Result<Prepared> {
    let frame = |index: usize| {
        events.check()?;
        let bytes = images[index].as_ref();
        let _share = Share::take(decoding_bytes(bytes, index)? + processor.bytes(clip), events)?;
        Ok(processor.prepare(&decode(bytes, index)?, clip))
    };
    let tiles = group.map(frame).collect::<Result<_>>()?;
    Ok(Prepared { tiles, width: clip.width, height: clip.height })
}

/// Cuts a list into runs whose sums fit `budget`; what is larger stands alone.
fn waves(sizes: &[u64], budget: u64) -> Vec<Range<usize>> {
    let mut waves: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (index, size) in sizes.iter().enumerate() {
        sum += size;
        match waves.last_mut() {
            Some(wave) if sum <= budget => wave.end = index + 1,
            _ => {
                waves.push(index..index + 1);
                sum = *size;
            }
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::super::ticket::stream;
    use super::*;

    #[test]
    fn runs_fit_the_budget_and_leave_nothing_out() {
        assert!(waves(&[], 10).is_empty());
        assert_eq!(waves(&[3, 3, 3, 3], 10), [0..3, 3..4]);
        assert_eq!(waves(&[30, 1, 30, 9, 1], 10), [0..1, 1..2, 2..3, 3..5]);
    }

    #[test]
    fn shares_wait_for_each_other_and_for_no_one_who_has_gone() {
        let (events, ticket) = stream();
        let most = Share::take(3 * BUDGET, &events).expect("nothing is taken");
        let waiting = std::thread::spawn(move || {
            let refused = Share::take(1, &events).is_err();
            (refused, events)
        });
        ticket.cancel();
        let (refused, _events) = waiting.join().expect("no panic");
        assert!(refused, "a cancelled request waits no longer");
        let (events, _ticket) = stream();
        let waiting = std::thread::spawn(move || Share::take(1, &events).is_ok());
        std::thread::sleep(Duration::from_millis(20));
        drop(most);
        assert!(waiting.join().expect("no panic"));
        assert_eq!(*TAKEN.lock().expect("sound"), 0);
    }
}
