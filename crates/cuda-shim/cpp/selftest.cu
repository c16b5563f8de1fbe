// Kernels with the defects that the shim must find, and one without: the tests of its checks.
#include "common.cuh"

namespace selftest {

constexpr unsigned THREADS = 64;

// out[i] = in[63 - i] by way of shared memory. The pointers are those of a NormArgs item: keys in, out out.
template <bool BARRIER>
__device__ void mirror(const NormArgs& args) {
  float* shared = shared_memory<float>();
  shared[threadIdx.x] = static_cast<const float*>(args.items[0].keys)[threadIdx.x];
  if (BARRIER) __syncthreads();
  args.items[0].out[threadIdx.x] = shared[THREADS - 1 - threadIdx.x];
}

// Like mirror, but what the other warp reads is overwritten without a barrier. A shuffle lies in between, which orders a warp only.
__device__ void overwritten(const NormArgs& args) {
  float* shared = shared_memory<float>();
  shared[threadIdx.x] = static_cast<const float*>(args.items[0].keys)[threadIdx.x];
  __syncthreads();
  const float x = shared[THREADS - 1 - threadIdx.x];
  const float most = team_max<32>(x);
  shared[threadIdx.x] = -1.0f;
  args.items[0].out[threadIdx.x] = x + 0.0f * most;
}

__device__ void early_leave(const NormArgs&) {
  if (threadIdx.x == 40) return;
  __syncthreads();
}

__device__ void half_at_a_shuffle(const NormArgs& args) {
  float x = 1.0f;
  if (threadIdx.x % 32 < 16) x = team_sum<32>(x);
  args.items[0].out[threadIdx.x] = x;
}

__device__ void two_barriers(const NormArgs&) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__device__ void behind_shared(const NormArgs&) { shared_memory<float>()[THREADS] = 1.0f; }

__device__ void behind_global(const NormArgs& args) { args.items[0].out[THREADS] = 1.0f; }

__device__ void unaligned(const NormArgs& args) {
  const float* from = static_cast<const float*>(args.items[0].keys);
  args.items[0].out[threadIdx.x] = float(Vector<float>::load(from + 1).bits.x);
}

__device__ void sums(const NormArgs& args) {
  args.items[0].out[threadIdx.x] = team_sum<8>(float(threadIdx.x)) + 1000.0f * team_max<32>(float(threadIdx.x));
}

}  // namespace selftest

KERNEL(selftest_mirror, NormArgs, selftest::THREADS, selftest::mirror<true>)
KERNEL(selftest_no_barrier, NormArgs, selftest::THREADS, selftest::mirror<false>)
KERNEL(selftest_overwritten, NormArgs, selftest::THREADS, selftest::overwritten)
KERNEL(selftest_early_leave, NormArgs, selftest::THREADS, selftest::early_leave)
KERNEL(selftest_half_at_a_shuffle, NormArgs, selftest::THREADS, selftest::half_at_a_shuffle)
KERNEL(selftest_two_barriers, NormArgs, selftest::THREADS, selftest::two_barriers)
KERNEL(selftest_behind_shared, NormArgs, selftest::THREADS, selftest::behind_shared)
KERNEL(selftest_behind_global, NormArgs, selftest::THREADS, selftest::behind_global)
KERNEL(selftest_unaligned, NormArgs, selftest::THREADS, selftest::unaligned)
KERNEL(selftest_sums, NormArgs, selftest::THREADS, selftest::sums)
