//! Compiles the CUDA sources as C++, with the header that stands in for the language extensions.

fn main() {
    let kernels = "../kernels/cuda";
    for folder in ["cpp", kernels] {
        println!("cargo:rerun-if-changed={folder}");
    }
    // Optimised in every profile: a case runs thousands of fibers. Strict floating point, as nvcc is told to be where it matters.
    let built = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .include(kernels)
        .flag("-ffp-contract=off")
        // In a shared library calls and thread-local variables of one's own are cheap only so.
        .flag("-fvisibility=hidden")
        .flag("-Wno-unknown-pragmas")
        .file("cpp/shim.cpp")
        .try_compile("prefixkv_cuda_shim");
    if let Err(error) = built {
        panic!(
            "The CUDA kernels are tested on the CPU, which takes a C++17 compiler (g++ or clang++; CXX names another). {error}"
        );
    }
}
