//! Kernels and matrix products on an NVIDIA GPU, through the driver and cuBLAS that are found at run time.

mod cublas;
mod memory;

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};

use self::cublas::Cublas;
use self::memory::{Pool, Staging};
use super::{Backend, Error, Geometry, Memory, Multiply, Result, errors};

/// The first version of CUDA whose drivers have every function that is called here. The kernels themselves need 13.0, which the
/// driver says when it loads them.
const OLDEST: i32 = 12_000;

/// Bytes where a driver may read words.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! image {
    ($name:literal) => {
        ($name, &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".fatbin"))))
    };
}

/// The compiled sources, for sm_80 and sm_90a with PTX for devices to come. Empty when only types are checked.
static IMAGES: [(&str, &Aligned<[u8]>); 6] =
    [image!("codec"), image!("decode"), image!("gather"), image!("network"), image!("prefill"), image!("rotary")];

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        Error::Driver(format!("the CUDA driver answered {}", words(error)))
    }
}

/// The name and number of an error with what to do. Asks the driver nothing, which may be gone.
fn words(DriverError(code): DriverError) -> String {
    format!("{code:?} ({}){}", code as u32, errors::advice(code as u32))
}

fn failure(what: &str, error: DriverError) -> Error {
    Error::Driver(format!("{what}: the CUDA driver answered {}", words(error)))
}

/// cudarc panics at a function that the driver does not have.
fn guarded<T>(job: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a function is missing");
        Err(Error::Unavailable(format!("the NVIDIA driver cannot be used: {text}. Install driver 580 or later.")))
    })
}

/// How many GPUs the driver knows.
///
/// # Errors
/// [`Error::Unavailable`] when there is no driver, or none that answers.
pub fn count() -> Result<usize> {
    require_driver()?;
    guarded(|| {
        let count = result::init().and_then(|()| result::device::get_count());
        count.map(|count| count.max(0) as usize).map_err(|error| {
            Error::Unavailable(format!("the NVIDIA driver is there and lists no GPU: it answered {}", words(error)))
        })
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

/// The version of CUDA that the driver is for, in thousands.
fn driver_version() -> Result<i32> {
    let mut version = 0;
    // SAFETY: writes one number to the place given; allowed before anything else.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok(version)
}

/// `13.0` for 13000.
fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// A GPU with the kernels loaded, working in the order of one stream. The fields go in their order, the context last.
pub struct Device {
    /// There from the end of `new` on.
    cublas: Option<Cublas>,
    /// Of cuBLAS; 0 until it is allocated.
    workspace: u64,
    modules: Vec<sys::CUmodule>,
    staging: Staging,
    pool: Pool,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    functions: Mutex<HashMap<String, Function>>,
    processors: u32,
    /// Bytes of shared memory that a block may have.
    shared: u32,
    /// The version of CUDA that the driver is for.
    driver: i32,
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
    /// [`Error::Unavailable`] when there is no driver, no such device, one that the kernels do not run on, or no cuBLAS.
    pub fn new(ordinal: usize) -> Result<Self> {
        require_driver()?;
        if IMAGES.iter().any(|(_, image)| image.0.is_empty()) {
            return Err(Error::Unavailable(
                "this build has no CUDA kernels: it was made with PREFIXKV_CUDA_CHECK=1. Build again without it."
                    .into(),
            ));
        }
        guarded(|| Device::open(ordinal))
    }

    fn open(ordinal: usize) -> Result<Self> {
        let unavailable = |what: String| Err(Error::Unavailable(format!("CUDA device {ordinal} {what}")));
        // A driver that does not even tell its version says why when the device is asked for.
        let driver = driver_version().unwrap_or(OLDEST);
        if driver < OLDEST {
            return unavailable(format!(
                "cannot be used: its driver is for CUDA {}. Install driver 580 or later.",
                dotted(driver)
            ));
        }
        let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
        let context = match CudaContext::new(number as usize) {
            Ok(context) => context,
            Err(error) => return unavailable(format!("cannot be used: the driver answered {}", words(error))),
        };
        let (major, minor) = context.compute_capability()?;
        if major < 8 {
            return unavailable(format!(
                "has compute capability {major}.{minor}; the kernels are built for 8.0 and newer"
            ));
        }
        if !context.has_async_alloc() {
            return unavailable("has no memory pools, which the kernels need".into());
        }
        cublas::require()?;
        let attribute = |attribute| -> Result<u32> { Ok(context.attribute(attribute)?.unsigned_abs()) };
        let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let stream = context.new_stream()?;
        // SAFETY: the context was bound to this thread when it was made, and the device, which the parts go into at once, keeps the
        // stream for longer than them.
        let (pool, staging) =
            unsafe { (Pool::new(context.cu_device(), stream.cu_stream())?, Staging::new(stream.cu_stream())?) };
        let mut device = Device {
            cublas: None,
            workspace: 0,
            modules: Vec::new(),
            staging,
            pool,
            stream,
            context,
            functions: Mutex::default(),
            processors,
            shared,
            driver,
        };
        for (name, image) in &IMAGES {
            // SAFETY: the image is a whole fatbin, as nvcc wrote it; the context is bound.
            match unsafe { result::module::load_data(image.0.as_ptr().cast()) } {
                Ok(module) => device.modules.push(module),
                Err(error) => {
                    let driver = dotted(driver);
                    return unavailable(format!(
                        "does not load the kernels of {name}: the driver, which is for CUDA {driver}, answered {}",
                        words(error)
                    ));
                }
            }
        }
        // SAFETY: the context is bound; the workspace is this long, aligned as every allocation is, and freed after the handle.
        unsafe {
            device.workspace = device.pool.allocate(Cublas::WORKSPACE)?;
            device.cublas = Some(Cublas::new(device.stream.cu_stream().cast(), device.workspace)?);
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
        // A call that fails here fails because the driver is going away.
        let _ = self.context.bind_to_thread();
        let _ = self.stream.synchronize();
        self.cublas = None;
        if self.workspace != 0 {
            // SAFETY: allocated in `open`; the handle that used it is gone.
            unsafe { self.pool.free(self.workspace) };
        }
        for module in &self.modules {
            // SAFETY: loaded in `open`, no launch is under way, and no function can be asked for any more.
            let _ = unsafe { result::module::unload(*module) };
        }
        let _ = self.stream.synchronize();
    }
}

impl Backend for Device {
    fn name(&self) -> String {
        self.context.name().unwrap_or_else(|error| format!("CUDA device ({})", words(error)))
    }

    fn software(&self) -> Vec<String> {
        let cublas = self.cublas.as_ref().map(|cublas| cublas.name().to_owned());
        std::iter::once(format!("driver for CUDA {}", dotted(self.driver))).chain(cublas).collect()
    }

    fn processors(&self) -> u32 {
        self.processors
    }

    fn memory(&self) -> Result<Memory> {
        self.context.bind_to_thread()?;
        // SAFETY: the context was bound.
        unsafe { self.pool.memory() }
    }

    fn trim(&self) -> Result<()> {
        self.context.bind_to_thread()?;
        // SAFETY: the context was bound.
        unsafe { self.pool.trim() }
    }

    fn synchronize(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.context.bind_to_thread()?;
        // SAFETY: the context was bound.
        unsafe { self.pool.allocate(bytes) }
    }

    unsafe fn free(&self, address: u64, _: usize) {
        // A call that fails here fails because the driver is going away.
        let _ = self.context.bind_to_thread();
        // SAFETY: the caller's promise; the context was bound.
        unsafe { self.pool.free(address) };
    }

    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        self.context.bind_to_thread()?;
        // SAFETY: in bounds by the caller's promise; the context was bound.
        unsafe { self.staging.write(to, from) }
    }

    unsafe fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return self.synchronize();
        }
        self.context.bind_to_thread()?;
        // SAFETY: in bounds by the caller's promise; the context was bound.
        unsafe { self.staging.read(from, to) }
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
            .map_err(|error| failure(&format!("{kernel} was not launched"), error))
    }

    unsafe fn product(&self, args: &Multiply) -> Result<()> {
        self.context.bind_to_thread()?;
        let Some(cublas) = &self.cublas else {
            return Err(Error::Unavailable("the device is not open yet".into()));
        };
        // SAFETY: the caller's promise; the context was bound.
        unsafe { cublas.product(args) }
    }
}
