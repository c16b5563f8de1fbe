//! Matrix products by cuBLAS, which is opened at run time.
//!
//! The functions are taken from the library that was found, by its handle. cudarc would open the first of many names that the
//! system's loader knows, of any version, and panics when there is none or a function is missing.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasMath_t, cublasOperation_t, cudaDataType_t, libraryPropertyType_t,
};
use libloading::Library;

use crate::cuda::cublas_path::{Candidate, Found, Names, VERSIONS, search};
use crate::cuda::{Error, Multiply, Number, Result, errors};

/// What NVIDIA recommends for Hopper; other devices use less of it.
const WORKSPACE: usize = 32 << 20;

type Handle = *mut c_void;
/// A `cublasStatus_t`, as a number: a later version may answer what the enum of this one does not have.
type Status = c_int;

/// The functions that are called, of one library that stays open until the process ends.
struct Functions {
    create: unsafe extern "C" fn(*mut Handle) -> Status,
    destroy: unsafe extern "C" fn(Handle) -> Status,
    set_stream: unsafe extern "C" fn(Handle, *mut c_void) -> Status,
    set_workspace: unsafe extern "C" fn(Handle, *mut c_void, usize) -> Status,
    set_math: unsafe extern "C" fn(Handle, cublasMath_t) -> Status,
    #[allow(clippy::type_complexity)]
    gemm: unsafe extern "C" fn(
        Handle,
        cublasOperation_t,
        cublasOperation_t,
        c_int,
        c_int,
        c_int,
        *const c_void,
        *const c_void,
        cudaDataType_t,
        c_int,
        *const c_void,
        cudaDataType_t,
        c_int,
        *const c_void,
        *mut c_void,
        cudaDataType_t,
        c_int,
        cublasComputeType_t,
        cublasGemmAlgo_t,
    ) -> Status,
    /// Such as `cuBLAS 13.0.2`.
    name: String,
}

/// The library of the process, opened once. That there is none may change, so only a success is kept.
fn functions() -> Result<&'static Functions> {
    static OPEN: Mutex<Option<&'static Functions>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(functions) = *open {
        return Ok(functions);
    }
    let functions: &'static Functions = Box::leak(Box::new(open_first(&search(|name| std::env::var_os(name)))?));
    *open = Some(functions);
    Ok(functions)
}

/// Opens the first library that can be used. Errors of files and folders go into the refusal; a name unknown to the
/// system's loader is the usual case and does not.
fn open_first(found: &Found) -> Result<Functions> {
    let mut failed = Vec::new();
    for candidate in &found.candidates {
        let (opened, name) = match candidate {
            Candidate::System(Names { library, .. }) => match open(Path::new(library)) {
                Ok(opened) => (opened, library.clone()),
                Err(_) => continue,
            },
            Candidate::Files { library, needed } => {
                // The library asks for the other by its name, which the loader then knows. It stays open, as does what needs it.
                if let Some(needed) = needed {
                    match open(needed) {
                        Ok(opened) => std::mem::forget(opened),
                        Err(reason) => failed.push(format!("{} cannot be opened: {reason}", needed.display())),
                    }
                }
                match open(library) {
                    Ok(opened) => (opened, library.display().to_string()),
                    Err(reason) => {
                        failed.push(format!("{} cannot be opened: {reason}", library.display()));
                        continue;
                    }
                }
            }
        };
        match Functions::of(opened) {
            Ok(functions) => return Ok(functions),
            Err(reason) => failed.push(format!("{name} {reason}")),
        }
    }
    Err(Error::Unavailable(found.refusal(&failed)))
}

#[cfg(unix)]
fn open(path: &Path) -> std::result::Result<Library, String> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // Local: what needs another library finds it by its name, and a second version in the process (PyTorch brings one) keeps its own.
    // SAFETY: opens NVIDIA's library, whose initialisers are trusted.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into).map_err(|error| reason(&error))
}

#[cfg(windows)]
fn open(path: &Path) -> std::result::Result<Library, String> {
    use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
    // With an absolute path: what the library needs is looked for in its own folder.
    let flags = if path.is_absolute() { LOAD_WITH_ALTERED_SEARCH_PATH } else { 0 };
    // SAFETY: opens NVIDIA's library, whose initialisers are trusted.
    unsafe { Library::load_with_flags(path, flags) }.map(Into::into).map_err(|error| reason(&error))
}

/// The loader's own words, which libloading keeps in the source of its error.
fn reason(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(" ({source})")).unwrap_or_default();
    format!("{error}{source}")
}

impl Functions {
    /// The functions of a library whose version is right. It is never closed.
    fn of(library: Library) -> std::result::Result<Self, String> {
        // Closing a library of CUDA while the process ends, or while it has handles elsewhere, is asking for trouble.
        let library: &'static Library = Box::leak(Box::new(library));
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the function has this type by the documentation of cuBLAS, in all versions of `VERSIONS`.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                    .map_err(|error| format!("has no {}: {}", $name, reason(&error)))?
            };
        }
        let property: unsafe extern "C" fn(libraryPropertyType_t, *mut c_int) -> Status =
            function!("cublasGetProperty");
        let part = |which| {
            let mut value = -1;
            // SAFETY: writes one number to the place given.
            unsafe { property(which, &raw mut value) };
            value
        };
        let version = [
            part(libraryPropertyType_t::MAJOR_VERSION),
            part(libraryPropertyType_t::MINOR_VERSION),
            part(libraryPropertyType_t::PATCH_LEVEL),
        ];
        if !VERSIONS.iter().any(|wanted| i64::from(*wanted) == i64::from(version[0])) {
            return Err(format!("is version {}, {} is needed", version[0], VERSIONS[0]));
        }
        Ok(Functions {
            create: function!("cublasCreate_v2"),
            destroy: function!("cublasDestroy_v2"),
            set_stream: function!("cublasSetStream_v2"),
            set_workspace: function!("cublasSetWorkspace_v2"),
            set_math: function!("cublasSetMathMode"),
            gemm: function!("cublasGemmEx"),
            name: format!("cuBLAS {}.{}.{}", version[0], version[1], version[2]),
        })
    }
}

fn check(what: &str, status: Status) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(Error::Driver(format!("{what}: cuBLAS answered {}", errors::status(status))))
}

/// Opens the library, so that a machine without one is refused before anything else is done.
pub(super) fn require() -> Result<()> {
    functions().map(|_| ())
}

/// A handle of one stream, with a workspace of its own.
pub(super) struct Cublas {
    functions: &'static Functions,
    /// A handle is not to be used by two threads at once.
    handle: Mutex<Handle>,
}

// SAFETY: a handle may be used by any thread, one at a time, which the lock sees to.
unsafe impl Send for Cublas {}
// SAFETY: as above.
unsafe impl Sync for Cublas {}

impl Cublas {
    /// Bytes of the workspace.
    pub(super) const WORKSPACE: usize = WORKSPACE;

    /// A handle whose work is in the order of `stream` and uses `workspace` only: without one of its own, products that run at the
    /// same time on other streams may change the order of sums. Atomics stay off, which is the default.
    ///
    /// # Safety
    /// The context of `stream` is current on the calling thread. `stream`, and [`Cublas::WORKSPACE`] bytes of the device at `workspace`,
    /// aligned to 256, live as long as the handle and are used by nothing else at the same time.
    pub(super) unsafe fn new(stream: *mut c_void, workspace: u64) -> Result<Self> {
        let functions = functions()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the place is valid; the context is set by the caller's promise.
        check("no handle", unsafe { (functions.create)(&raw mut handle) })?;
        let cublas = Cublas { functions, handle: Mutex::new(handle) };
        // SAFETY: a new handle; stream and workspace are valid by the caller's promise. Setting the stream takes the workspace away, so it
        // comes first.
        unsafe {
            check("no stream", (functions.set_stream)(handle, stream))?;
            check("no workspace", (functions.set_workspace)(handle, workspace as *mut c_void, WORKSPACE))?;
            // No TF32 for f32, and no sums in half precision.
            let math = cublasMath_t::CUBLAS_DEFAULT_MATH;
            check("no arithmetic", (functions.set_math)(handle, math))?;
        }
        Ok(cublas)
    }

    /// Such as `cuBLAS 13.0.2`.
    pub(super) fn name(&self) -> &str {
        &self.functions.name
    }

    /// `y = x W^T` by rows, or added to `y`. cuBLAS counts by columns, where these are `y^T = W x^T`: `W^T` and `x^T` lie there, so the first factor is
    /// transposed.
    ///
    /// # Safety
    /// As [`crate::cuda::Backend::product`]; the context is current on the calling thread.
    pub(super) unsafe fn product(&self, args: &Multiply) -> Result<()> {
        let Multiply { x, weight, y, .. } = *args;
        let [n, rows, columns] = sizes(args)?;
        let number = match args.number {
            Number::F32 => cudaDataType_t::CUDA_R_32F,
            Number::F16 => cudaDataType_t::CUDA_R_16F,
            Number::Bf16 => cudaDataType_t::CUDA_R_16BF,
        };
        let (one, beta) = (1.0f32, if args.onto { 1.0f32 } else { 0.0 });
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the addresses hold matrices of these sizes by the caller's promise; the factors are read during the call, because
        // pointers of a new handle are those of the host.
        let status = unsafe {
            (self.functions.gemm)(
                *handle,
                cublasOperation_t::CUBLAS_OP_T,
                cublasOperation_t::CUBLAS_OP_N,
                rows,
                n,
                columns,
                (&raw const one).cast(),
                weight as *const c_void,
                number,
                columns,
                x as *const c_void,
                number,
                columns,
                (&raw const beta).cast(),
                y as *mut c_void,
                cudaDataType_t::CUDA_R_32F,
                rows,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        check(&format!("a product of {n} x {columns} and {rows} x {columns}"), status)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        let handle = *self.handle.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: created once and destroyed once. A failure here means that the driver is going away.
        unsafe { (self.functions.destroy)(handle) };
    }
}

/// Rows of `x`, rows of the weight and columns, as cuBLAS takes them.
fn sizes(args: &Multiply) -> Result<[c_int; 3]> {
    let Multiply { n, rows, columns, .. } = *args;
    let fits = |size: usize| c_int::try_from(size).ok();
    match (fits(n), fits(rows), fits(columns)) {
        (Some(n), Some(rows), Some(columns)) => Ok([n, rows, columns]),
        _ => Err(Error::Argument(format!(
            "a product of {n} x {columns} and {rows} x {columns}: cuBLAS takes sizes up to {}",
            c_int::MAX
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cublas_cannot_count_are_refused() {
        let number = Number::F16;
        let args = |n, rows, columns| Multiply { x: 0, weight: 0, y: 0, n, rows, columns, number, onto: false };
        let most = i32::MAX as usize;
        assert_eq!(sizes(&args(1, 2, most)), Ok([1, 2, i32::MAX]));
        for args in [args(most + 1, 1, 1), args(1, most + 1, 1), args(1, 1, usize::MAX)] {
            assert!(matches!(sizes(&args), Err(Error::Argument(text)) if text.contains("2147483647")));
        }
    }

    #[test]
    fn the_library_of_this_machine_is_opened_or_its_lack_is_explained() {
        match functions() {
            Ok(functions) => assert!(functions.name.starts_with("cuBLAS 1"), "{}", functions.name),
            Err(Error::Unavailable(text)) => assert!(text.contains("pip install nvidia-cublas"), "{text}"),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_library_or_another_one_is_in_the_refusal() {
        let folder = std::env::temp_dir().join(format!("prefixkv-cublas-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let file = folder.join("libcublas.so.13");
        std::fs::write(&file, "no library").expect("a file can be written");
        let candidates = vec![
            Candidate::Files { library: file.clone(), needed: Some(folder.join("libcublasLt.so.13")) },
            // Some library that is everywhere and has none of the functions.
            Candidate::System(Names { library: "libc.so.6".into(), needed: String::new() }),
            Candidate::System(Names { library: "libprefixkv-nowhere.so".into(), needed: String::new() }),
        ];
        let found = Found { candidates, folders: vec![folder.clone()], unfit: Vec::new() };
        let refusal = open_first(&found).map(|_| ());
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
        let Err(Error::Unavailable(text)) = refusal else { panic!("{refusal:?}") };
        for part in [
            &format!("{} cannot be opened: ", file.display()),
            "libcublasLt.so.13 cannot be opened: ",
            "libc.so.6 has no cublasGetProperty",
            "pip install nvidia-cublas",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("nowhere"), "{text}");
    }
}
