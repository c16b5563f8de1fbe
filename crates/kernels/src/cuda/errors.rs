//! Errors of the driver and of cuBLAS, in words.

/// Advice after an error of the driver, by its number; empty where there is none.
pub(super) fn advice(code: u32) -> &'static str {
    match code {
        // The context is lost: every later call of the process gives the same answer.
        214 | 220 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 999 => {
            "; nothing works on the device in this process any more, start it again"
        }
        // The library that only serves to link against.
        34 => {
            "; libcuda.so is the stub of the toolkit, take its folder (lib64/stubs) off the path of the system's loader"
        }
        209 | 218 | 222 => "; the kernels need a newer driver: 580 or later",
        803 => "; the driver was updated while it ran, restart the machine",
        _ => "",
    }
}

/// A status by the name that cuBLAS gives it.
pub(super) fn status(code: i32) -> String {
    let name = match code {
        1 => "NOT_INITIALIZED",
        3 => "ALLOC_FAILED",
        7 => "INVALID_VALUE",
        8 => "ARCH_MISMATCH",
        11 => "MAPPING_ERROR",
        13 => "EXECUTION_FAILED",
        14 => "INTERNAL_ERROR",
        15 => "NOT_SUPPORTED",
        16 => "LICENSE_ERROR",
        _ => return format!("status {code}"),
    };
    format!("CUBLAS_STATUS_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_the_process_asks_to_start_it_again() {
        for code in [700, 702, 710, 715, 716, 719, 999] {
            assert!(advice(code).contains("start it again"), "{code}");
        }
        for code in [1, 2, 100, 101, 600, 701, 801] {
            assert_eq!(advice(code), "", "{code}");
        }
        assert_eq!((status(13), status(99)), ("CUBLAS_STATUS_EXECUTION_FAILED".into(), "status 99".into()));
    }
}
