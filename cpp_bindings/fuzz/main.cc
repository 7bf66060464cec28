// libFuzzer's side of every target; see target.hpp.
#include <sanitizer/allocator_interface.h>

#include <atomic>

#include "target.hpp"
#include "vqvae/error.hpp"

namespace {

// Live heap of the input that is being checked, and its peak. libFuzzer allocates nothing meanwhile.
std::atomic<std::ptrdiff_t> live{0};
std::atomic<std::ptrdiff_t> peak{0};

void on_malloc(const volatile void* /*block*/, std::size_t size) {
  const std::ptrdiff_t now = live += static_cast<std::ptrdiff_t>(size);
  if (now > peak) peak = now;
}

void on_free(const volatile void* block) {
  const void* freed = const_cast<const void*>(block);
  if (freed != nullptr && __sanitizer_get_ownership(freed) != 0) {
    live -= static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(freed));
  }
}

constexpr unsigned kMendedOf = 8;  // Of so many mutations all but one are mended; some checksums must stay wrong.

}  // namespace

extern "C" {

std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  require(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0, "the memory is watched");
  return 0;
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const vqvae::Bytes bytes(data, data + size);
  live = 0;
  peak = 0;
  try {
    check(bytes);
  } catch (const vqvae::InputError&) {  // As it must be.
  }
  if (peak > static_cast<std::ptrdiff_t>(budget(bytes))) {
    std::fprintf(stderr, "fuzz: %td bytes for an input of %zu\n", peak.load(), size);
    std::abort();
  }
  return 0;
}

std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  const std::size_t mutated = LLVMFuzzerMutate(data, size, max_size);
  if (seed % kMendedOf != 0) mend(data, mutated);
  return mutated;
}
}
