//! Memory that is free, but still the process's.

/// Gives the allocator's free pages back to the system, where the allocator keeps them: glibc does, in a heap per thread, and
/// models come and go with threads of their own.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: follows no pointer of ours and may be called on any thread at any time (glibc 2.8 and later).
        unsafe { malloc_trim(0) };
    }
}
