//! The addon, both doors included, whose `cuda:0` is the shim: for `tests/contract` and `tests/gpu`.

use std::sync::LazyLock;

use prefixkv_core::model::{StandIn, stand_in};
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::cuda::check::Sizes;
use prefixkv_kernels::cuda::{Error, Gpu, Result};

// Links their functions in.
pub use prefixkv::*;
#[cfg(feature = "addon")]
pub use prefixkv_node::*;

/// One for the process, as a card is.
static CARD: LazyLock<Shim> = LazyLock::new(|| Shim::new(Order::FirstToLast, 8));

/// Bytes that are allocated on the shim.
#[cfg(feature = "addon")]
#[napi_derive::napi]
pub fn shim_allocated() -> f64 {
    CARD.allocated() as f64
}

fn card(index: usize) -> Result<Gpu> {
    if index > 0 {
        return Err(Error::Unavailable(format!("there is no device {index}, only the shim")));
    }
    Ok((**CARD).clone())
}

extern "C" fn start() {
    stand_in(StandIn { count: 1, open: card, sizes: Sizes::small });
}

/// Run when the library is opened, through whichever door.
#[used]
// SAFETY: the loader calls each entry of this section once, without arguments; `start` sets a cell and cannot panic.
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
static START: extern "C" fn() = start;
