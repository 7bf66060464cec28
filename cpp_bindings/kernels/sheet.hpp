// Tensors of all images in training: in blocks of one pixel of 32 images by 32 channels, those of a group of images
// together, its channels one behind the other, and of these the pixels.
#ifndef VQVAE_KERNELS_SHEET_HPP_
#define VQVAE_KERNELS_SHEET_HPP_

#include <cstddef>
#include <cstdint>

#include "matmul.hpp"
#include "plan.hpp"

namespace vqvae::kernels {

inline std::size_t blocks_of(std::size_t count) { return (count + kBlock - 1) / kBlock; }

// A block.
struct Spot {
  std::size_t group;
  std::size_t chunk;  // of the channels
  std::size_t pixel;
};

// Work that several threads share, always in the same way.
struct Team {
  std::size_t thread;
  std::size_t count;

  template <typename Work>
  void share(std::size_t all, const Work& work) const {
    for (std::size_t i = all * thread / count; i < all * (thread + 1) / count; ++i) work(i);
  }
};

// Some groups of images, which a thread takes by itself or all share.
struct Part {
  Team team;
  std::size_t first;
  std::size_t groups;

  // Every block, of so many of a group.
  template <typename Work>
  void share(std::size_t blocks, const Work& work) const {
    team.share(groups * blocks, [&](std::size_t at) { work(first * blocks + at); });
  }
  // Until all that share the part are here.
  void wait() const;
};

// Blocks of so many bytes.
class Sheet {
 public:
  Sheet() = default;
  Sheet(std::size_t groups, std::size_t channels, std::size_t pixels, std::size_t block_bytes);

  explicit operator bool() const { return memory_ != nullptr; }
  std::size_t chunks() const { return chunks_; }
  std::size_t pixels() const { return pixels_; }
  std::size_t blocks() const { return chunks_ * pixels_; }  // of a group
  std::size_t block_bytes() const { return block_bytes_; }

  Spot spot(std::size_t number) const {
    return {number / pixels_ / chunks_, number / pixels_ % chunks_, number % pixels_};
  }
  std::uint8_t* at(std::size_t number) const { return memory_.get() + number * block_bytes_; }
  std::uint8_t* at(const Spot& spot) const { return at((spot.group * chunks_ + spot.chunk) * pixels_ + spot.pixel); }
  float* numbers(const Spot& spot) const { return reinterpret_cast<float*>(at(spot)); }

 private:
  std::size_t chunks_ = 0;
  std::size_t pixels_ = 0;
  std::size_t block_bytes_ = 0;
  Memory memory_;
};

// Blocks of numbers; of few channels only those are kept.
class Numbers {
 public:
  static constexpr std::size_t kFewChannels = 8;

  Numbers() = default;
  Numbers(std::size_t groups, const Extent& extent);

  explicit operator bool() const { return static_cast<bool>(sheet_); }
  // Where a block is; it may have to be put into another.
  const float* get(const Spot& spot, float* other) const;
  void put(const float* block, const Spot& spot) const;
  // A block of few channels as it is kept: the rows follow each other.
  std::size_t width() const { return width_; }
  const float* few(std::size_t group, std::size_t pixel) const { return sheet_.numbers({group, 0, pixel}); }

  // From and to a tensor (N, C, H, W).
  void read(const Part& part, const float* images, std::size_t count) const;
  void write(const Part& part, float* images, std::size_t count) const;

 private:
  template <typename Exchange>
  void each_square(const Part& part, std::size_t count, const Exchange& exchange) const;

  Extent extent_;
  std::size_t width_ = 0;
  Sheet sheet_;
};

}  // namespace vqvae::kernels

#endif  // VQVAE_KERNELS_SHEET_HPP_
