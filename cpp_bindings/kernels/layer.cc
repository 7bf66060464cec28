#include "layer.hpp"

#include <algorithm>

#include "square.hpp"

namespace vqvae::kernels {
namespace {

// For each pixel the products that it is the sum of: the operands of the other side, and the matrices of the kernel,
// those of one place behind each other. Of windows a pixel takes its own.
std::vector<std::vector<Factors>> factors_of(const std::vector<std::vector<Tap>>& taps, bool are_windows,
                                             const Sheet& other) {
  std::vector<std::vector<Factors>> result(taps.size());
  const auto take = [&](std::size_t pixel, std::size_t from, std::size_t place) {
    for (std::size_t chunk = 0; chunk < other.chunks(); ++chunk) {
      result[pixel].push_back(
          {(chunk * other.pixels() + from) * other.block_bytes(), (place * other.chunks() + chunk) * kSquareBytes});
    }
  };
  for (std::size_t pixel = 0; pixel < taps.size(); ++pixel) {
    if (are_windows) {
      take(pixel, pixel, 0);
    } else {
      for (const Tap& tap : taps[pixel]) take(pixel, tap.pixel, tap.place);
    }
  }
  return result;
}

}  // namespace

void Bench::make(std::size_t groups) {
  turned = allocate(groups * read * kSquareBytes);
  paired = allocate(groups * given * kSquareBytes);
}

std::size_t Layer::matrices(Form form) const {
  return blocks_of(link_.rows(form)) * blocks_of(link_.columns(form)) * link_.places(form);
}

void Layer::allocate_for(std::size_t groups, Bench* bench) {
  const Form own = link_.own();
  const std::size_t read_pixels = (reads_windows() ? link_.out() : link_.in()).pixels();
  const std::size_t given_pixels = (gives_windows() ? link_.in() : link_.out()).pixels();
  groups_ = groups;
  x_ = Sheet(groups, link_.rows(own), read_pixels, kSquareBytes);
  dy_ = Sheet(groups, link_.columns(own), given_pixels, kSquareBytes);
  sums_ = Sheet(groups, link_.out().channels, link_.out().pixels(), kBlock * sizeof(float));
  if (gives_windows()) few_dy_ = Numbers(groups, link_.out());
  if (own != Form::kPlain) windows_ = link_.windows();
  forward_ = allocate(matrices(link_.forward()) * kSquareBytes);
  backward_ = allocate(matrices(link_.backward()) * kSquareBytes);
  bias_.assign(blocks_of(link_.out().channels) * kBlock, 0.0F);
  taken_ = factors_of(link_.taken(), reads_windows(), x_);
  given_ = factors_of(link_.given(), gives_windows(), dy_);
  own_.resize(link_.places(own));
  for (std::size_t pixel = 0; pixel < given_pixels; ++pixel) {
    if (own != Form::kPlain) {
      own_[0].push_back({pixel * kSquareBytes, pixel * kSquareBytes});
    } else {
      for (const Tap& tap : link_.taken()[pixel]) {
        own_[tap.place].push_back({tap.pixel * kSquareBytes, pixel * kSquareBytes});
      }
    }
  }
  bench->read = std::max(bench->read, x_.blocks());
  bench->given = std::max(bench->given, dy_.blocks());
}

// Outside of a matrix there are zeros.
void Layer::take_matrix(Form form, const float* kernel, std::size_t row, std::size_t column, std::size_t place,
                        float* block) const {
  const std::size_t rows = std::min(kBlock, link_.rows(form) - row);
  const std::size_t columns = std::min(kBlock, link_.columns(form) - column);
  if (rows < kBlock || columns < kBlock) clear(block);
  std::size_t offsets[kBlock];
  for (std::size_t c = 0; c < columns; ++c) offsets[c] = link_.address(form, 0, column + c, place);
  for (std::size_t r = 0; r < rows; ++r) {
    const float* from = kernel + link_.address(form, row + r, 0, 0);
    for (std::size_t c = 0; c < columns; ++c) block[r * kBlock + c] = from[offsets[c]];
  }
}

void Layer::take_kernel(const Team& team, const float* kernel, const float* bias, float* spare) {
  const Form form = link_.forward();
  const std::size_t rows = blocks_of(link_.rows(form));
  const std::size_t places = link_.places(form);
  alignas(kAlignment) std::uint8_t operand[kSquareBytes];
  team.share(matrices(form), [&](std::size_t at) {
    take_matrix(form, kernel, at % rows * kBlock, at / rows / places * kBlock, at / rows % places, spare);
    to_left(spare, operand);
    to_right(operand, forward_.get() + at * kSquareBytes);
  });
  if (bias != nullptr && team.thread == 0) std::copy_n(bias, link_.out().channels, bias_.begin());
}

void Layer::take_kernel_back(const Team& team, const float* kernel, float* spare) {
  const Form form = link_.backward();
  const std::size_t columns = blocks_of(link_.columns(form));
  const std::size_t places = link_.places(form);
  alignas(kAlignment) std::uint8_t operand[kSquareBytes];
  team.share(matrices(form), [&](std::size_t at) {
    take_matrix(form, kernel, at / columns / places * kBlock, at % columns * kBlock, at / columns % places, spare);
    to_left(spare, operand);
    to_turned_right(operand, backward_.get() + at * kSquareBytes);
  });
}

void Layer::lay_out(const Part& part, const Numbers& image, const Sheet& to, float* spare) const {
  const Form form = link_.own();
  const std::size_t places = windows_.size() / to.pixels();
  const std::size_t channels = form == Form::kInputWindows ? link_.rows(form) : link_.columns(form);
  part.share(to.blocks(), [&](std::size_t at) {
    const Spot spot = to.spot(at);
    const std::size_t first = spot.chunk * kBlock;
    clear(spare);
    for (std::size_t column = 0; column < std::min(kBlock, channels - first); ++column) {
      const std::uint32_t from = windows_[spot.pixel * places + (first + column) % places];
      if (from == Link::kOutside) continue;
      const float* numbers = image.few(spot.group, from) + (first + column) / places;
      for (std::size_t row = 0; row < kBlock; ++row) {
        spare[row * kBlock + column] = numbers[row * Numbers::kFewChannels];
      }
    }
    to_left(spare, to.at(at));
  });
}

void Layer::read(const float* block, const Spot& spot) const { to_left(block, x_.at(spot)); }

void Layer::read_windows(const Part& part, const Numbers& image, float* spare) const {
  lay_out(part, image, x_, spare);
}

void Layer::compute(const Spot& spot, float* block) const {
  const std::size_t bytes = link_.places(link_.forward()) * x_.chunks() * kSquareBytes;
  multiply(x_.at({spot.group, 0, 0}), forward_.get() + spot.chunk * bytes, taken_[spot.pixel],
           link_.out().channels - spot.chunk * kBlock, false, block);
  add_columns(bias_.data() + spot.chunk * kBlock, block);
}

void Layer::read_gradient(const float* block, const Spot& spot) const {
  sum_columns(block, sums_.numbers(spot));
  if (gives_windows()) {
    few_dy_.put(block, spot);
  } else {
    to_left(block, dy_.at(spot));
  }
}

void Layer::read_gradient_windows(const Part& part, float* spare) const { lay_out(part, few_dy_, dy_, spare); }

void Layer::compute_gradient(const Spot& spot, float* block) const {
  const std::size_t bytes = link_.places(link_.backward()) * dy_.chunks() * kSquareBytes;
  multiply(dy_.at({spot.group, 0, 0}), backward_.get() + spot.chunk * bytes, given_[spot.pixel],
           link_.in().channels - spot.chunk * kBlock, false, block);
}

void Layer::prepare_kernel_gradient(const Part& part, const Bench& bench) const {
  part.team.share(part.groups * x_.blocks(), [&](std::size_t at) {
    to_mixed_left(x_.at(part.first * x_.blocks() + at), bench.turned.get() + at * kSquareBytes);
  });
  part.team.share(part.groups * dy_.blocks(), [&](std::size_t at) {
    to_mixed_right(dy_.at(part.first * dy_.blocks() + at), bench.paired.get() + at * kSquareBytes);
  });
}

void Layer::compute_kernel_gradient(const Part& part, const Bench& bench, bool begins, float* matrices) const {
  const std::size_t columns = dy_.chunks();
  const std::size_t places = own_.size();
  for (std::size_t group = 0; group < part.groups; ++group) {
    part.team.share(own_matrices(), [&](std::size_t at) {
      const std::size_t row = at / places / columns;
      const std::size_t column = at / places % columns;
      multiply(bench.turned.get() + (group * x_.chunks() + row) * x_.pixels() * kSquareBytes,
               bench.paired.get() + (group * columns + column) * dy_.pixels() * kSquareBytes, own_[at % places], kBlock,
               !begins || group > 0, matrices + at * kSquare);
    });
  }
}

void Layer::give_kernel_gradient(const Team& team, const std::vector<float*>& matrices, float* kernel) const {
  const Form form = link_.own();
  const std::size_t columns = dy_.chunks();
  const std::size_t places = own_.size();
  team.share(own_matrices(), [&](std::size_t at) {
    float* block = matrices[0] + at * kSquare;
    for (std::size_t k = 1; k < matrices.size(); ++k) add(matrices[k] + at * kSquare, block);
    const std::size_t row = at / places / columns * kBlock;
    const std::size_t column = at / places % columns * kBlock;
    for (std::size_t r = 0; r < kBlock; ++r) {
      if (row + mixed(r) >= link_.rows(form)) continue;
      for (std::size_t c = 0; c < kBlock; ++c) {
        if (column + mixed(c) >= link_.columns(form)) continue;
        kernel[link_.address(form, row + mixed(r), column + mixed(c), at % places)] = block[r * kBlock + c];
      }
    }
  });
}

void Layer::give_bias_gradient(const Team& team, float* bias) const {
  team.share(link_.out().channels, [&](std::size_t channel) {
    float sum = 0;
    for (std::size_t group = 0; group < groups_; ++group) {
      const float* sums = sums_.numbers({group, channel / kBlock, 0}) + channel % kBlock;
      for (std::size_t pixel = 0; pixel < link_.out().pixels(); ++pixel) sum += sums[pixel * kBlock];
    }
    bias[channel] = sum;
  });
}

}  // namespace vqvae::kernels
