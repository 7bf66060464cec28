#include "processor.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace vqvae::kernels {

bool has_amx() {
  static const bool answer = [] {
    constexpr unsigned kBfloat16 = 1U << 22;
    constexpr unsigned kTileUnit = 1U << 24;
    constexpr unsigned kInt8 = 1U << 25;
    constexpr unsigned kWanted = kBfloat16 | kTileUnit | kInt8;
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kWanted) != kWanted) return false;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
      return false;
    }
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return answer;
}

}  // namespace vqvae::kernels
