#include "sheet.hpp"

#include <algorithm>

#include "square.hpp"

namespace vqvae::kernels {
namespace {

constexpr std::size_t kLanes = 16;

}  // namespace

void Part::wait() const {
  if (team.count > 1) {
#pragma omp barrier
  }
}

Sheet::Sheet(std::size_t groups, std::size_t channels, std::size_t pixels, std::size_t block_bytes)
    : chunks_(blocks_of(channels)),
      pixels_(pixels),
      block_bytes_(block_bytes),
      memory_(allocate(groups * blocks() * block_bytes)) {}

Numbers::Numbers(std::size_t groups, const Extent& extent)
    : extent_(extent),
      width_(extent.channels <= kFewChannels ? kFewChannels : kBlock),
      sheet_(groups, extent.channels, extent.pixels(), width_ * kBlock * sizeof(float)) {}

const float* Numbers::get(const Spot& spot, float* other) const {
  if (width_ == kBlock) return sheet_.numbers(spot);
  widen(sheet_.numbers(spot), width_, other);
  return other;
}

void Numbers::put(const float* block, const Spot& spot) const { narrow(block, width_, sheet_.numbers(spot)); }

void Numbers::read(const Part& part, const float* images, std::size_t count) const {
  each_square(part, count, [&](float* here, std::size_t there, std::size_t channels, std::size_t pixels) {
    turn(images + there, extent_.pixels(), channels, pixels, here, width_ * kBlock);
  });
}

void Numbers::write(const Part& part, float* images, std::size_t count) const {
  each_square(part, count, [&](const float* here, std::size_t there, std::size_t channels, std::size_t pixels) {
    turn(here, width_ * kBlock, pixels, channels, images + there, extent_.pixels());
  });
}

// 16 channels by 16 pixels of an image: where they are here, and there.
template <typename Exchange>
void Numbers::each_square(const Part& part, std::size_t count, const Exchange& exchange) const {
  const std::size_t strips = (extent_.pixels() + kLanes - 1) / kLanes;
  part.share(sheet_.chunks() * strips, [&](std::size_t at) {
    const Spot spot = {at / strips / sheet_.chunks(), at / strips % sheet_.chunks(), at % strips * kLanes};
    const std::size_t pixels = std::min(kLanes, extent_.pixels() - spot.pixel);
    const std::size_t first = spot.group * kBlock;
    for (std::size_t image = first; image < std::min(first + kBlock, count); ++image) {
      for (std::size_t half = 0; half < width_; half += kLanes) {
        const std::size_t channel = spot.chunk * kBlock + half;
        if (channel >= extent_.channels) break;
        exchange(sheet_.numbers(spot) + (image - first) * width_ + half,
                 (image * extent_.channels + channel) * extent_.pixels() + spot.pixel,
                 std::min(kLanes, extent_.channels - channel), pixels);
      }
    }
  });
}

}  // namespace vqvae::kernels
