//! Memory that goes back to the system: large blocks as soon as they are freed, the allocator's free pages when asked.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;
use memmap2::MmapMut;

/// From this size on a block is a mapping of its own: at most a sixteenth of it is lost to the last page, and less than half of that
/// on average. Smaller ones come from the allocator, which keeps what is freed.
const MAPPED_FROM: usize = 64 << 10;
/// From this size on a mapping holds a huge page of 2 MiB, wherever it begins.
#[cfg(target_os = "linux")]
const HUGE_FROM: usize = 4 << 20;
/// Most mappings at a time; Linux allows a process 65,530, and its other libraries need some.
const MAX_MAPPINGS: usize = 16_384;

static MAPPINGS: AtomicUsize = AtomicUsize::new(0);
static MAPPED: AtomicUsize = AtomicUsize::new(0);
static WATCHER: OnceLock<fn(isize)> = OnceLock::new();

/// Bytes of all mapped blocks now.
pub fn mapped() -> usize {
    MAPPED.load(Ordering::Relaxed)
}

/// Has a function called with the bytes of every mapping from now on, those of one that goes with a minus: an allocator that counts, in
/// a test, does not see them.
#[doc(hidden)]
pub fn watch(changed: fn(isize)) {
    WATCHER.get_or_init(|| changed);
}

fn note(change: isize) {
    MAPPED.fetch_add(change as usize, Ordering::Relaxed);
    if let Some(changed) = WATCHER.get() {
        changed(change);
    }
}

/// A number that is zero when all its bytes are, and for which every byte pattern is a value.
pub trait Plain: Copy + Send + Sync + sealed::Sealed + 'static {
    const ZERO: Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

impl Plain for u8 {
    const ZERO: Self = 0;
}

impl Plain for f32 {
    const ZERO: Self = 0.0;
}

impl Plain for f16 {
    const ZERO: Self = f16::ZERO;
}

/// A block of numbers, zeros at first. A large one is a mapping of its own, whose pages the system has back when it is dropped.
#[derive(Debug)]
pub struct Block<T>(Store<T>);

#[derive(Debug)]
enum Store<T> {
    Allocated(Vec<T>),
    Mapped(Mapped),
}

#[derive(Debug)]
struct Mapped(MmapMut);

impl Mapped {
    /// None where a mapping is not worth it or not to be had.
    fn new(bytes: usize) -> Option<Mapped> {
        if bytes < MAPPED_FROM {
            return None;
        }
        if MAPPINGS.fetch_add(1, Ordering::Relaxed) < MAX_MAPPINGS
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // Keys and values are read at the pace of memory, and with pages of 4 KiB a good part of that is looking pages up. Huge pages
            // lie within the block, so it takes no more. A system without them says no, and all is as before.
            #[cfg(target_os = "linux")]
            if bytes >= HUGE_FROM {
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            note(bytes as isize);
            return Some(Mapped(map));
        }
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        note(-(self.0.len() as isize));
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Plain> Block<T> {
    /// A block of `elements`.
    pub fn zeros(elements: usize) -> Block<T> {
        Block(match Mapped::new(elements * size_of::<T>()) {
            Some(map) => Store::Mapped(map),
            None => Store::Allocated(vec![T::ZERO; elements]),
        })
    }
}

impl<T: Plain> Deref for Block<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Store::Allocated(numbers) => numbers,
            // SAFETY: a mapping begins at a page, which is aligned for every `Plain`; its length is a number of whole elements, all of
            // them there; every byte pattern is a value; and the slice borrows the mapping.
            Store::Mapped(Mapped(map)) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast::<T>(), map.len() / size_of::<T>())
            },
        }
    }
}

impl<T: Plain> DerefMut for Block<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Store::Allocated(numbers) => numbers,
            // SAFETY: as in `deref`; the mapping is borrowed uniquely.
            Store::Mapped(Mapped(map)) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast::<T>(), map.len() / size_of::<T>())
            },
        }
    }
}

/// Gives the allocator's free pages back to the system, where the allocator keeps them: glibc does, in a heap per thread. Those of the
/// calling thread and of rayon's, which it waits for: it is not for a thread of rayon's own.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back();
}

/// From now on the allocator keeps what is freed, up to 64 MiB at the end of a heap, until it is given back. A layer of a prompt frees
/// megabytes that the next one takes again, and new pages cost more than the work that is done in them.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep_freed();
}

/// [`give_back`], unless the process has grown by less than `slack` bytes since it had least after the last one. To be asked often: it
/// costs the reading of one number from the system, about 10 microseconds.
pub fn give_back_beyond(slack: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back_beyond(slack);
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = slack;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::hint::black_box;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Below the size from which an allocation gets a mapping of its own (128 KiB, or more).
    const BLOCK: usize = 96 << 10;
    /// As many as fill a heap of a thread, of 64 MiB.
    const BLOCKS: usize = (64 << 20) / BLOCK + 1;

    /// The largest block that a mapping of its own teaches glibc anything about is one of 32 MiB; some of it is for the header and the
    /// rest of a page.
    const LARGEST: usize = (32 << 20) - (64 << 10);

    /// glibc returns the end of a heap once it is twice as long as the largest mapping ever freed. So one is freed that nobody has
    /// touched. A process that has set thresholds of its own keeps them.
    pub(super) fn keep_freed() {
        drop(black_box(Vec::<u8>::with_capacity(LARGEST)));
    }

    /// `malloc_trim` alone is not enough: in a soak on Deno a thread's heap of 19 MiB, the size of the model's weights, stayed resident
    /// from some round on, through hundreds of trims; with this there was none in 1500 rounds. And after a prompt of 480 tokens 14 MiB
    /// stayed in the heap of a thread of rayon's.
    pub(super) fn give_back() {
        let ends = (rayon::broadcast(|_| loosened()), loosened());
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: follows no pointer of ours and may be called on any thread at any time (glibc 2.8 and later).
        unsafe { malloc_trim(0) };
        drop(black_box(ends));
    }

    /// The heap of the calling thread is filled with blocks, of which only the headers are touched, and emptied again up to the last one,
    /// so that what was free at its end no longer is the end, which glibc keeps up to a threshold that grows with the largest mapping ever
    /// freed.
    fn loosened() -> Option<Vec<u8>> {
        let mut blocks: Vec<Vec<u8>> = (0..=BLOCKS).map(|_| black_box(Vec::with_capacity(BLOCK))).collect();
        blocks.pop()
    }

    /// Resident bytes at the lowest since pages were last given back.
    static LOWEST: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn give_back_beyond(slack: usize) {
        let Some(now) = resident() else { return };
        if now <= LOWEST.load(Ordering::Relaxed).saturating_add(slack) {
            LOWEST.fetch_min(now, Ordering::Relaxed);
            return;
        }
        give_back();
        LOWEST.store(resident().unwrap_or(now), Ordering::Relaxed);
    }

    /// Bytes of the process that are in memory. Pages have 4 KiB on the platforms that there are packages for; where they are larger
    /// this is too small a number, and pages are given back more rarely.
    fn resident() -> Option<usize> {
        let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
        Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
    }

    #[cfg(test)]
    mod tests {
        use std::sync::Mutex;

        use super::super::{Block, HUGE_FROM, MAPPED_FROM, mapped};

        /// The tests look at the memory of the whole process.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

        fn resident() -> usize {
            super::resident().expect("statm")
        }

        /// Whether the system was asked for huge pages where `block` lies; None where it does not tell.
        fn wants_huge_pages(block: &Block<u8>) -> Option<bool> {
            let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
            let place = block.as_ptr() as usize;
            let holds = |line: &str| {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                range.is_some_and(|(first, end)| {
                    let number = |text| usize::from_str_radix(text, 16).ok();
                    number(first).is_some_and(|first| first <= place) && number(end).is_some_and(|end| place < end)
                })
            };
            let mut lines = maps.lines().skip_while(|line| !holds(line));
            let flags = lines.find(|line| line.starts_with("VmFlags:"))?;
            Some(flags.split(' ').any(|flag| flag == "hg"))
        }

        #[test]
        fn large_blocks_ask_for_huge_pages() {
            let _one = ONE_AT_A_TIME.lock();
            let there = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
            for (bytes, wants) in [(MAPPED_FROM, false), (HUGE_FROM - 4, false), (HUGE_FROM, true), (33 << 20, true)] {
                let found = wants_huge_pages(&Block::zeros(bytes));
                assert!(found.is_none_or(|found| found == (wants && there)), "{bytes} bytes: {found:?}");
            }
        }

        #[test]
        fn blocks_are_zero_whole_and_go_back_at_once() {
            let _one = ONE_AT_A_TIME.lock();
            for bytes in [0, 4, 4096, MAPPED_FROM - 4, MAPPED_FROM, MAPPED_FROM + 4, 5 << 20] {
                let mut block = Block::<f32>::zeros(bytes / 4);
                assert_eq!(block.len(), bytes / 4);
                assert!(block.iter().all(|x| *x == 0.0));
                block.iter_mut().zip(0u16..).for_each(|(x, i)| *x = f32::from(i));
                assert!(block.iter().zip(0u16..).all(|(x, i)| *x == f32::from(i)));
                let halves = Block::<half::f16>::zeros(bytes / 2);
                assert!(halves.len() == bytes / 2 && halves.iter().all(|x| x.to_f32() == 0.0));
            }
            let (before, mapped_before) = (resident(), mapped());
            let blocks: Vec<Block<u8>> = (0..200)
                .map(|_| {
                    let mut block = Block::zeros(512 << 10);
                    block.fill(1);
                    block
                })
                .collect();
            let full = resident();
            assert!(full > before + (80 << 20), "{before} bytes resident, then {full}");
            assert!(mapped() >= mapped_before + (100 << 20));
            // Blocks freed between others go back too.
            let kept: Vec<Block<u8>> = blocks.into_iter().step_by(2).collect();
            let half = resident();
            assert!(half + (40 << 20) < full, "{full} bytes resident, then {half}");
            drop(kept);
            assert!(resident() + (80 << 20) < full);
        }

        #[test]
        fn what_threads_of_rayon_have_freed_goes_back() {
            let _one = ONE_AT_A_TIME.lock();
            let threads = rayon::current_num_threads();
            let fill = || {
                drop(std::hint::black_box(vec![1u8; 24 << 20]));
                let blocks: Vec<Vec<u8>> = (0..20).map(|_| vec![1; 1 << 20]).collect();
                drop(std::hint::black_box(blocks));
            };
            rayon::broadcast(|_| fill());
            let full = resident();
            super::super::give_back();
            let after = resident();
            assert!(after + threads * (15 << 20) < full, "{full} bytes resident, then {after}, with {threads} threads");
        }

        #[test]
        fn what_is_freed_stays_until_it_is_given_back() {
            let _one = ONE_AT_A_TIME.lock();
            let work = || {
                super::super::keep_freed();
                let blocks: Vec<Vec<u8>> = (0..40).map(|_| vec![1; 1 << 20]).collect();
                let full = resident();
                drop(std::hint::black_box(blocks));
                let freed = resident();
                super::super::give_back();
                (full, freed, resident())
            };
            let (full, freed, after) = std::thread::spawn(work).join().expect("no panic");
            assert!(freed + (5 << 20) > full, "{full} bytes resident, then {freed}");
            assert!(after + (30 << 20) < full, "{full} bytes resident, then {after}");
        }

        #[test]
        fn what_a_thread_has_freed_goes_back() {
            let _one = ONE_AT_A_TIME.lock();
            let work = || {
                // From now on, blocks of up to 24 MiB lie in heaps, and ends of up to 48 MiB stay.
                drop(std::hint::black_box(vec![1u8; 24 << 20]));
                let blocks: Vec<Vec<u8>> = (0..40).map(|_| vec![1; 1 << 20]).collect();
                let full = resident();
                drop(std::hint::black_box(blocks));
                super::super::give_back();
                (full, resident())
            };
            let (full, after) = std::thread::spawn(work).join().expect("no panic");
            assert!(after + (30 << 20) < full, "{full} bytes resident, then {after}");
        }
    }
}
