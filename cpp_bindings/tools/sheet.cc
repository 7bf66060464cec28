#include "sheet.hpp"

#include <algorithm>
#include <utility>

namespace {

constexpr std::int64_t kMaxPairs = 64;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;
constexpr std::int64_t kColumns = 16;
constexpr std::int64_t kGap = 2;  // Between an image and its reconstruction.
constexpr std::int64_t kMargin = 6;
constexpr std::uint8_t kWhite = 255;

}  // namespace

void Sheet::add(vqvae::Tensor image, vqvae::Tensor reconstruction) {
  const std::int64_t height = std::max(height_, image.shape[1]);
  const std::int64_t width = std::max(width_, image.shape[2]);
  const auto count = static_cast<std::int64_t>(pairs_.size()) + 1;
  full_ = full_ || count > kMaxPairs || (count > 1 && count * height * width > kMaxPixels);
  if (full_) return;
  height_ = height;
  width_ = width;
  pairs_.push_back({std::move(image), std::move(reconstruction)});
}

vqvae::Tensor Sheet::draw() const {
  const auto count = static_cast<std::int64_t>(pairs_.size());
  const std::int64_t columns = std::min(count, kColumns);
  const std::int64_t rows = (count + columns - 1) / columns;
  const std::int64_t down = 2 * height_ + kGap + kMargin;
  const std::int64_t across = width_ + kMargin;
  vqvae::Tensor sheet(vqvae::DType::kUint8,
                      {1, rows * down + kMargin, columns * across + kMargin, pairs_.front().image.shape[3]});
  std::fill(sheet.data.begin(), sheet.data.end(), kWhite);
  for (std::int64_t i = 0; i < count; ++i) {
    const Pair& pair = pairs_[static_cast<std::size_t>(i)];
    const vqvae::Part whole = {0, 0, 0, 1, pair.image.shape[1], pair.image.shape[2]};
    const std::int64_t top = kMargin + i / columns * down;
    const std::int64_t left = kMargin + i % columns * across;
    vqvae::paste(pair.image, whole, &sheet, 0, top, left);
    vqvae::paste(pair.reconstruction, whole, &sheet, 0, top + height_ + kGap, left);
  }
  return sheet;
}
