//! Kernels on an NVIDIA GPU, through the driver that is found at run time.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use super::{Backend, Error, Geometry, Memory, Multiply, Result};

/// Bytes where a driver may read words.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! image {
    ($name:literal) => {
        ($name, &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin"))))
    };
}

/// The compiled sources, for sm_80 and sm_90a with PTX for devices to come. Empty when only types are checked.
static IMAGES: [(&str, &Aligned<[u8]>); 5] =
    [image!("decode"), image!("gather"), image!("network"), image!("prefill"), image!("rotary")];

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        Error::Driver(format!("the CUDA driver answered {error}"))
    }
}

/// How many GPUs the driver knows.
///
/// # Errors
/// [`Error::Unavailable`] when there is no driver, or none that answers.
pub fn count() -> Result<usize> {
    require_driver()?;
    let count = result::init().and_then(|()| result::device::get_count());
    count.map(|count| count.max(0) as usize).map_err(|error| {
        Error::Unavailable(format!("the NVIDIA driver is there and lists no GPU: it answered {error}"))
    })
}

fn require_driver() -> Result<()> {
    // SAFETY: opens the driver's library, whose initialisers are trusted.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::Unavailable(
        "no NVIDIA driver: its library (libcuda.so.1, on Windows nvcuda.dll) was not found. Install the driver, or use the CPU."
            .into(),
    ))
}

/// A GPU with the kernels loaded, working in the order of one stream.
pub struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    modules: Vec<sys::CUmodule>,
    functions: Mutex<HashMap<String, Function>>,
    processors: u32,
    /// Bytes of shared memory that a block may have.
    shared: u32,
}

#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: handles of the driver, which is safe to call from any thread; they are valid as long as the device's modules.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Send for Device {}
// SAFETY: as above; what changes is behind a lock.
unsafe impl Sync for Device {}

impl Device {
    /// The GPU with this number, from 0.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no driver, no such device, or one that the kernels do not run on.
    pub fn new(ordinal: usize) -> Result<Self> {
        require_driver()?;
        if IMAGES.iter().any(|(_, image)| image.0.is_empty()) {
            return Err(Error::Unavailable(
                "this build has no CUDA kernels: it was made with PREFIXKV_CUDA_CHECK=1. Build again without it."
                    .into(),
            ));
        }
        let context = CudaContext::new(ordinal).map_err(|error| {
            Error::Unavailable(format!("CUDA device {ordinal} cannot be used: the driver answered {error}"))
        })?;
        let (major, minor) = context.compute_capability()?;
        if major < 8 {
            return Err(Error::Unavailable(format!(
                "CUDA device {ordinal} has compute capability {major}.{minor}; the kernels are built for 8.0 and newer"
            )));
        }
        if !context.has_async_alloc() {
            return Err(Error::Unavailable(format!(
                "CUDA device {ordinal} has no memory pools, which the kernels need"
            )));
        }
        let attribute = |attribute| -> Result<u32> { Ok(context.attribute(attribute)?.unsigned_abs()) };
        let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let stream = context.new_stream()?;
        let mut device =
            Device { context, stream, modules: Vec::new(), functions: Mutex::default(), processors, shared };
        for (name, image) in &IMAGES {
            // SAFETY: the image is a whole fatbin, as nvcc wrote it; the context was bound when it was made.
            let module = unsafe { result::module::load_data(image.0.as_ptr().cast()) }
                .map_err(|error| Error::Unavailable(format!("CUDA device {ordinal} does not load {name}: {error}")))?;
            device.modules.push(module);
        }
        Ok(device)
    }

    fn function(&self, kernel: &str) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(kernel) {
            return Ok(*function);
        }
        let name = CString::new(kernel).map_err(|_| Error::Driver(format!("no kernel is called {kernel:?}")))?;
        for module in &self.modules {
            // SAFETY: the module is loaded as long as the device lives.
            let Ok(function) = (unsafe { result::module::get_function(*module, name.clone()) }) else { continue };
            // SAFETY: a function of a loaded module.
            unsafe {
                let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                result::function::set_function_attribute(function, most, self.shared as i32)?;
            }
            functions.insert(kernel.to_owned(), Function(function));
            return Ok(Function(function));
        }
        Err(Error::Driver(format!("no kernel is called {kernel}")))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // What fails here fails because the driver is going away, and everything with it.
        let _ = self.context.bind_to_thread();
        let _ = self.stream.synchronize();
        for module in &self.modules {
            // SAFETY: loaded in `new`, no launch is under way, and no function can be asked for any more.
            let _ = unsafe { result::module::unload(*module) };
        }
    }
}

impl Backend for Device {
    fn name(&self) -> String {
        self.context.name().unwrap_or_else(|error| format!("CUDA device ({error})"))
    }

    fn processors(&self) -> u32 {
        self.processors
    }

    fn memory(&self) -> Result<Memory> {
        self.context.bind_to_thread()?;
        let (free, total) = result::mem_get_info()?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }

    fn trim(&self) -> Result<()> {
        self.synchronize()
    }

    fn synchronize(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.context.bind_to_thread()?;
        // SAFETY: the stream is alive. The driver does not allocate nothing.
        Ok(unsafe { result::malloc_async(self.stream.cu_stream(), bytes.max(1)) }?)
    }

    unsafe fn free(&self, address: u64, _: usize) {
        // What fails here fails because the driver is going away.
        let _ = self.context.bind_to_thread();
        // SAFETY: allocated on this stream and freed once, by the caller's promise.
        let _ = unsafe { result::free_async(address, self.stream.cu_stream()) };
    }

    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        self.context.bind_to_thread()?;
        // SAFETY: in bounds by the caller's promise. Memory that is not pinned is taken over before the call returns.
        Ok(unsafe { result::memcpy_htod_async(to, from, self.stream.cu_stream()) }?)
    }

    unsafe fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        if !to.is_empty() {
            self.context.bind_to_thread()?;
            // SAFETY: in bounds by the caller's promise; `to` is borrowed until the stream has caught up.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.cu_stream()) }?;
        }
        self.synchronize()
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.bind_to_thread()?;
        // SAFETY: in bounds and apart by the caller's promise.
        Ok(unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }?)
    }

    unsafe fn launch(&self, kernel: &str, geometry: Geometry, args: &[u8]) -> Result<()> {
        let Geometry { grid, threads, shared } = geometry;
        if shared > self.shared {
            return Err(Error::Unavailable(format!(
                "{kernel} needs {shared} bytes of shared memory per block; this device has {}",
                self.shared
            )));
        }
        self.context.bind_to_thread()?;
        let function = self.function(kernel)?;
        let mut arguments = [args.as_ptr().cast_mut().cast::<c_void>()];
        let (grid, threads) = ((grid[0], grid[1], 1), (threads, 1, 1));
        // SAFETY: the function belongs to a loaded module and takes one argument, which the driver copies during the call; what
        // it does with the addresses in it is the caller's promise.
        unsafe { result::launch_kernel(function.0, grid, threads, shared, self.stream.cu_stream(), &mut arguments) }
            .map_err(|error| Error::Driver(format!("{kernel} was not launched: the CUDA driver answered {error}")))
    }

    unsafe fn product(&self, _: &Multiply) -> Result<()> {
        Err(Error::Unavailable("this build has no matrix products on CUDA devices".into()))
    }
}
