//! Memory that is free, but still the process's.

/// Gives the allocator's free pages back to the system, where the allocator keeps them: glibc does, in a heap per thread, and
/// models come and go with threads of their own. For the thread that has allocated most of what is free.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::hint::black_box;

    /// Below the size from which an allocation gets a mapping of its own (128 KiB, or more).
    const BLOCK: usize = 96 << 10;
    /// As many as fill a heap of a thread, of 64 MiB.
    const BLOCKS: usize = (64 << 20) / BLOCK + 1;

    /// `malloc_trim` alone is not enough: in a soak on Deno a thread's heap of 19 MiB, the size of the model's weights, stayed resident
    /// from some round on, through hundreds of trims; with this there was none in 1500 rounds. The heap of the calling thread is
    /// filled with blocks, of which only the headers are touched, and emptied again up to the last one, so that what was free at its
    /// end no longer is the end, which glibc keeps up to a threshold that grows with the largest mapping ever freed.
    pub(super) fn give_back() {
        let mut blocks: Vec<Vec<u8>> = (0..=BLOCKS).map(|_| black_box(Vec::with_capacity(BLOCK))).collect();
        let end = blocks.pop();
        drop(blocks);
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: follows no pointer of ours and may be called on any thread at any time (glibc 2.8 and later).
        unsafe { malloc_trim(0) };
        drop(black_box(end));
    }

    #[cfg(test)]
    mod tests {
        fn resident() -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
        }

        #[test]
        fn what_a_thread_has_freed_goes_back() {
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
