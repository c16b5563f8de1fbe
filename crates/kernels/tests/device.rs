//! Errors of opening a GPU where there is none.

use prefixkv_kernels::cuda::{Error, device::Device};

#[test]
fn a_device_that_is_not_there_is_an_error() {
    // True of machines with and without a driver, and of builds without kernels.
    match Device::new(4096) {
        Err(Error::Unavailable(text)) => {
            assert!(
                ["libcuda.so.1", "device 4096", "PREFIXKV_CUDA_CHECK"].iter().any(|part| text.contains(part)),
                "{text}"
            );
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a device 4096"),
    }
}
