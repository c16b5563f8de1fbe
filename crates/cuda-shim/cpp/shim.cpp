// Runs kernels on the CPU: one block after the other, its threads as fibers of one thread of the machine.
//
// A fiber runs until it leaves or comes to a barrier or a shuffle; it goes on when all threads of its block (or warp) have come
// to the same line, warp by warp. Threads that can never meet are divergence, which is undefined on a device and an error here. Order is the
// caller's: threads and blocks from the first to the last or the other way round; a kernel that misses a barrier reads what is
// not there yet in one of the two. Shared memory is all NaN before a block starts and must be as it was behind the size asked for.
#include "shim.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t MOST_THREADS = 1024;
constexpr size_t STACK = 128 * 1024;
constexpr size_t SHARED = 227 * 1024;
constexpr size_t BEHIND = 4096;
constexpr unsigned char POISON = 0xff;

struct Found {
  std::string name;
  unsigned threads;
  size_t size;
  void (*run)(const void*);
};

std::vector<Found>& kernels() {
  static std::vector<Found> all;
  return all;
}

// Whether nothing was written here, in a multiple of 32 bytes. Without a branch per byte: it is asked each time a fiber stops.
bool intact(const unsigned char* bytes, size_t n) {
  static_assert(POISON == 0xff, "all bits are set where nothing was written");
  const auto word = [](const unsigned char* from) {
    uint64_t word;
    memcpy(&word, from, 8);
    return word;
  };
  uint64_t all = ~uint64_t(0);
  for (const unsigned char* at = bytes; at < bytes + n; at += 32) {
    all &= word(at) & word(at + 8) & word(at + 16) & word(at + 24);
  }
  return all == ~uint64_t(0);
}

}  // namespace

__thread uint4 block_memory[(SHARED + BEHIND) / sizeof(uint4)];

extern "C" void shim_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size shim_switch, .-shim_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl shim_switch
shim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#else
#error "the fibers of the shim are written for x86-64 and aarch64"
#endif

namespace {

struct Fiber {
  void* stack_pointer;
  bool left;
  shim::Wait waits;
  int line;
  // Of shuffles: which of the two buffers the next one uses.
  unsigned turn;
};

struct Machine {
  std::unique_ptr<unsigned char[]> stacks{new unsigned char[MOST_THREADS * STACK]};
  Fiber fibers[MOST_THREADS];
  uint32_t lanes[MOST_THREADS / 32][2][32];
  void* scheduler;
  unsigned current;
  void (*run)(const void*);
  const void* args;
  std::string error;

  static Machine& get() {
    static thread_local std::unique_ptr<Machine> machine{new Machine};
    return *machine;
  }

  static void enter() {
    Machine& machine = get();
    machine.run(machine.args);
    machine.fibers[machine.current].left = true;
    machine.leave();
  }

  void leave() {
    shim_switch(&fibers[current].stack_pointer, scheduler);
  }

  void prepare(unsigned thread) {
    unsigned char* low = stacks.get() + thread * STACK;
    memset(low, POISON, 64);
    auto top = reinterpret_cast<uintptr_t>(low + STACK) / 16 * 16;
    auto* words = reinterpret_cast<void**>(top);
#if defined(__x86_64__)
    // As after a call: the return address of `enter` (never used), its address, six registers.
    words[-1] = nullptr;
    words[-2] = reinterpret_cast<void*>(&enter);
    for (int i = 3; i <= 8; ++i) words[-i] = nullptr;
    fibers[thread].stack_pointer = words - 8;
#else
    for (int i = 1; i <= 20; ++i) words[-i] = nullptr;
    words[-20 + 11] = reinterpret_cast<void*>(&enter);
    fibers[thread].stack_pointer = words - 20;
#endif
    fibers[thread].left = false;
    fibers[thread].waits = shim::Wait::None;
    fibers[thread].turn = 0;
  }

  // Lets the threads first .. first + n go on when all of them wait for the same.
  bool release(unsigned first, unsigned n, shim::Wait what) {
    for (unsigned i = first; i < first + n; ++i) {
      if (fibers[i].left || fibers[i].waits != what || fibers[i].line != fibers[first].line) return false;
    }
    for (unsigned i = first; i < first + n; ++i) fibers[i].waits = shim::Wait::None;
    return true;
  }

  std::string stuck(unsigned threads) {
    std::string text = "the threads of a block can never meet:";
    int told = 0;
    for (unsigned i = 0; i < threads && told < 4; ++i) {
      if (i > 0 && fibers[i].left == fibers[i - 1].left && fibers[i].line == fibers[i - 1].line &&
          fibers[i].waits == fibers[i - 1].waits)
        continue;
      ++told;
      text += " thread " + std::to_string(i);
      if (fibers[i].left) text += " has left,";
      else
        text += std::string(" waits ") + (fibers[i].waits == shim::Wait::Block ? "at the barrier" : "for the shuffle") +
                " of line " + std::to_string(fibers[i].line) + ",";
    }
    text.pop_back();
    return text;
  }

  bool block(unsigned threads, bool reverse) {
    for (unsigned i = 0; i < threads; ++i) prepare(i);
    memset(lanes, POISON, sizeof lanes);
    for (;;) {
      // Warp by warp, each as far as it comes without the others: what it does before the next barrier, it does while the
      // warps behind it have not begun.
      bool moved = false;
      const unsigned warps = threads / 32;
      for (unsigned i = 0; i < warps; ++i) {
        const unsigned first = 32 * (reverse ? warps - 1 - i : i);
        do {
          if (!warp(first, reverse, moved)) return false;
        } while (release(first, 32, shim::Wait::Shuffle));
      }
      bool left = true;
      for (unsigned i = 0; i < threads; ++i) left &= fibers[i].left;
      if (left) return true;
      moved |= release(0, threads, shim::Wait::Block);
      if (!moved) return error = stuck(threads), false;
    }
  }

  // Runs the threads of a warp that do not wait until they leave or wait.
  bool warp(unsigned first, bool reverse, bool& moved) {
    for (unsigned i = 0; i < 32; ++i) {
      current = first + (reverse ? 31 - i : i);
      Fiber& fiber = fibers[current];
      if (fiber.left || fiber.waits != shim::Wait::None) continue;
      moved = true;
      threadIdx = {current, 0, 0};
      shim_switch(&scheduler, fiber.stack_pointer);
      if (!error.empty()) return false;
      if (!intact(&stacks[current * STACK], 64)) return error = "the stack of a thread was too small", false;
    }
    return true;
  }
};

}  // namespace

namespace shim {

void wait(Wait what, int line) {
  Machine& machine = Machine::get();
  Fiber& fiber = machine.fibers[machine.current];
  fiber.waits = what;
  fiber.line = line;
  machine.leave();
}

uint32_t* exchange(uint32_t value, int line) {
  Machine& machine = Machine::get();
  Fiber& fiber = machine.fibers[machine.current];
  // Two buffers: a lane may be at the next shuffle while another still reads this one's.
  uint32_t* lanes = machine.lanes[machine.current / 32][fiber.turn];
  fiber.turn ^= 1;
  lanes[machine.current % 32] = value;
  wait(Wait::Shuffle, line);
  return lanes;
}

void stop(const char* what, int line) {
  Machine& machine = Machine::get();
  machine.error = std::string(what) + " at line " + std::to_string(line);
  machine.leave();
  abort();
}

Kernel::Kernel(const char* name, unsigned threads, size_t size, void (*run)(const void*)) {
  kernels().push_back({name, threads, size, run});
}

}  // namespace shim

float __half2float(__half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16;
  const uint32_t magnitude = x.bits & 0x7fff;
  uint32_t bits = magnitude << 13;
  float to;
  if (magnitude >= 0x7c00) {
    bits |= 0x7f800000;
  } else {
    // The digits are where they belong; the product sets the exponent right, and is exact, for subnormals too.
    memcpy(&to, &bits, 4);
    to *= 0x1p112f;
    memcpy(&bits, &to, 4);
  }
  bits |= sign;
  memcpy(&to, &bits, 4);
  return to;
}

__half __float2half_rn(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const float size = fabsf(x);
  if (x != x) return {uint16_t(sign | 0x7e00)};
  if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  int exponent = -14;
  if (size >= 0x1p-14f) frexpf(size, &exponent), exponent -= 1;
  // In units of the last place; nearbyint rounds half to even. A carry into the next exponent is right as it is.
  const auto units = uint32_t(nearbyintf(ldexpf(size, 10 - exponent)));
  return {uint16_t(sign | ((uint32_t(exponent + 14) << 10) + units))};
}

__nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return {uint16_t(bits >> 16 | 0x40)};
  bits += 0x7fff + (bits >> 16 & 1);
  return {uint16_t(bits >> 16)};
}

#include "codec.cu"
#include "decode.cu"
#include "gather.cu"
#include "network.cu"
#include "prefill.cu"
#include "rotary.cu"
#include "selftest.cu"

#include "layout.h"

// Runs a kernel; 0, or 1 with the reason in `error`.
extern "C" int shim_launch(const char* name, const unsigned* grid, unsigned threads, unsigned shared, const void* args,
                           size_t size, int reverse, char* error, size_t room) {
  const auto fail = [&](const std::string& text) {
    snprintf(error, room, "%s: %s", name, text.c_str());
    return 1;
  };
  const Found* kernel = nullptr;
  for (const Found& found : kernels()) {
    if (found.name == name) kernel = &found;
  }
  if (kernel == nullptr) return fail("no such kernel");
  if (kernel->threads != threads) return fail("is written for blocks of " + std::to_string(kernel->threads) + " threads");
  if (kernel->size != size) return fail("takes " + std::to_string(kernel->size) + " bytes of arguments");
  if (shared > SHARED || threads > MOST_THREADS || threads % 32 != 0) return fail("no device runs such a block");
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535 || grid[0] > 0x7fffffff)
    return fail("no device runs such a grid");
  Machine& machine = Machine::get();
  machine.run = kernel->run;
  machine.args = args;
  machine.error.clear();
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {threads, 1, 1};
  auto* memory = reinterpret_cast<unsigned char*>(block_memory);
  const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t block = reverse ? blocks - 1 - i : i;
    blockIdx = {unsigned(block % grid[0]), unsigned(block / grid[0] % grid[1]), unsigned(block / grid[0] / grid[1])};
    memset(memory, POISON, shared + BEHIND);
    if (!machine.block(threads, reverse != 0)) return fail(machine.error);
    if (!intact(memory + shared, BEHIND)) return fail("wrote behind its shared memory");
  }
  return 0;
}

extern "C" float shim_widen_half(uint16_t bits) { return __half2float(__half{bits}); }
extern "C" uint16_t shim_narrow_half(float x) { return __float2half_rn(x).bits; }
extern "C" float shim_widen_bfloat(uint16_t bits) { return __bfloat162float(__nv_bfloat16{bits}); }
extern "C" uint16_t shim_narrow_bfloat(float x) { return __float2bfloat16_rn(x).bits; }
