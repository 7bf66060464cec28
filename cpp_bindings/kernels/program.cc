#include "program.hpp"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>

#include "plan.hpp"

namespace vqvae::kernels {
namespace {

constexpr std::size_t kCacheBytes = std::size_t{7} << 18;  // that the images computed together may take
constexpr std::size_t kSlack = std::size_t{1} << 16;       // whole tiles are read beyond the last row

constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();

// Where things are when so many images go through the steps together.
struct Layout {
  std::size_t images = 0;
  std::size_t bytes = 0;
  std::vector<std::size_t> tensors;  // where each begins
  // Of the operands: where a row of an image goes, and a pixel of it, in each copy.
  std::vector<std::vector<std::size_t>> rows;
  std::vector<std::vector<std::size_t>> pixels;  // (copy, x)
  // Of each product of each step: where the pixels of the first window are.
  std::vector<std::vector<std::vector<std::size_t>>> windows;
};

// Every tensor at a place of its own while it lives, or, if it is `kept`, for ever.
void place_tensors(const Plan& plan, bool kept, Layout* layout) {
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const Tensor& tensor = plan.tensors[i];
    std::vector<std::pair<std::size_t, std::size_t>> taken;  // begin, end
    for (std::size_t k = 0; k < i; ++k) {
      const Tensor& other = plan.tensors[k];
      if (!kept && (other.last_step < tensor.first_step || tensor.last_step < other.first_step)) continue;
      taken.emplace_back(layout->tensors[k], layout->tensors[k] + other.bytes(layout->images));
    }
    std::sort(taken.begin(), taken.end());
    std::size_t offset = 0;
    for (const auto& [begin, end] : taken) {
      if (offset + tensor.bytes(layout->images) <= begin) break;
      offset = std::max(offset, end);
    }
    layout->tensors.push_back(offset);
    layout->bytes = std::max(layout->bytes, offset + tensor.bytes(layout->images));
  }
}

// Where row or column `at` of an image goes along one side of the windows, `size` pixels that begin at `begin`, of
// which there are `grid`: for each place in the window, `place` bytes apart, if it is folded; else once. `step` are the
// bytes from one pixel to the one a stride further on, `next` to the following one. What no window reads goes nowhere.
std::vector<std::size_t> place_along(std::size_t extent, const Tensor& tensor, std::size_t size, int begin,
                                     std::size_t grid, std::size_t step, std::size_t next, std::size_t place) {
  const std::size_t stride = tensor.windows.stride;
  std::vector<std::size_t> result;
  for (std::size_t k = 0; k < (tensor.folded() ? size : 1); ++k) {
    for (std::size_t at = 0; at < extent; ++at) {
      const int from = static_cast<int>(at) - begin - static_cast<int>(k);
      const std::size_t first = static_cast<std::size_t>(from) % stride;
      const std::size_t number = static_cast<std::size_t>(from) / stride;
      std::size_t offset = kNowhere;
      if (from >= 0 && tensor.folded()) {
        if (first == 0 && number < grid) offset = number * step + k * place;
      } else if (from >= 0 && first < size && number < grid + (size - 1 - first) / stride) {
        offset = first * next + number * step;
      }
      result.push_back(offset);
    }
  }
  return result;
}

void place_pixels(const Tensor& tensor, Layout* layout) {
  layout->rows.emplace_back();
  layout->pixels.emplace_back();
  if (!tensor.is_operand) return;
  const Windows& windows = tensor.windows;
  const std::size_t line = tensor.line(layout->images);
  const std::size_t place = tensor.extent.channels * element_bytes(tensor.format);
  const std::size_t next = layout->images * tensor.pixel();
  layout->rows.back() = place_along(tensor.extent.height, tensor, windows.rows, windows.y, windows.grid_height, line,
                                    tensor.lines() * line, place);
  // Folded, the columns of the window are the slower ones.
  layout->pixels.back() = place_along(tensor.extent.width, tensor, windows.columns, windows.x, windows.grid_width, next,
                                      tensor.copy(layout->images), windows.rows * place);
}

std::vector<std::size_t> place_windows(const Tensor& tensor, const Product& product, std::size_t images) {
  if (tensor.folded()) return {0};
  const std::size_t stride = tensor.windows.stride;
  std::vector<std::size_t> offsets;
  for (std::size_t x = product.left; x < product.left + product.columns; ++x) {
    for (std::size_t y = product.top; y < product.top + product.rows; ++y) {
      offsets.push_back(x % stride * tensor.copy(images) + x / stride * images * tensor.pixel() +
                        (y % stride * tensor.lines() + y / stride) * tensor.line(images));
    }
  }
  return offsets;
}

Layout lay_out(const Plan& plan, std::size_t images, bool kept) {
  Layout layout;
  layout.images = images;
  place_tensors(plan, kept, &layout);
  for (const Tensor& tensor : plan.tensors) place_pixels(tensor, &layout);
  for (const Step& step : plan.steps) {
    std::vector<std::vector<std::size_t>>& products = layout.windows.emplace_back();
    for (const Product& product : step.products) {
      products.push_back(place_windows(plan.tensors[step.input], product, images));
    }
  }
  return layout;
}

// Zeros where windows hang over the edge of an image, and where a pixel is filled up.
void clear(const Tensor& tensor, std::size_t images, std::uint8_t* base) {
  const Windows& windows = tensor.windows;
  if (tensor.folded() || tensor.channels() * element_bytes(tensor.format) % kChunkBytes != 0) {
    std::memset(base, 0, tensor.bytes(images));
    return;
  }
  const auto is_outside = [](std::size_t at, int begin, std::size_t extent) {
    const int place = static_cast<int>(at) + begin;
    return place < 0 || place >= static_cast<int>(extent);
  };
  const std::size_t stride = windows.stride;
  const std::size_t pitch = tensor.pitch;
  const std::size_t line = tensor.line(images);
  for (std::size_t sheet = 0; sheet < plane_count(tensor.format) * tensor.chunks(); ++sheet) {
    for (std::size_t first = 0; first < stride; ++first) {
      std::uint8_t* row = base + sheet * tensor.sheet(images) + first * tensor.copy(images);
      std::size_t from = 0;  // the columns from here to there are in the image
      while (from < pitch && is_outside(from * stride + first, windows.x, tensor.extent.width)) ++from;
      std::size_t to = from;
      while (to < pitch && !is_outside(to * stride + first, windows.x, tensor.extent.width)) ++to;
      for (std::size_t y = 0; y < stride; ++y) {
        for (std::size_t i = 0; i < tensor.lines(); ++i, row += line) {
          if (is_outside(i * stride + y, windows.y, tensor.extent.height)) {
            std::memset(row, 0, line);
            continue;
          }
          const std::size_t next = images * tensor.pixel();
          std::memset(row, 0, from * next);
          std::memset(row + to * next, 0, (pitch - to) * next);
        }
      }
      std::memset(row, 0, windows.columns * images * tensor.pixel());
    }
  }
}

// What a thread needs beside the tensors.
struct Scratch {
  Block block;
  Block part;
  Smallest smallest;
  std::vector<float> framed;  // an image with what is around it
  std::vector<float> line;    // of its windows
};

}  // namespace

class Program::Impl {
 public:
  Impl(const Graph& graph, const std::vector<Data>& inputs, int threads)
      : plan_(make_plan(graph, inputs)), threads_(static_cast<std::size_t>(std::max(threads, 1))) {
    if (plan_.steps.empty() || plan_.images == 0) return;
    const std::size_t together =
        std::max<std::size_t>(kCacheBytes / std::max<std::size_t>(lay_out(plan_, 1, false).bytes, 1), 1);
    std::size_t groups = (plan_.images + together - 1) / together;
    // Fewer images than threads: all threads share each step, and all images go together.
    is_spread_ = plan_.images < threads_;
    groups = is_spread_ ? 1 : (groups + threads_ - 1) / threads_ * threads_;
    const std::size_t group = (plan_.images + groups - 1) / groups;
    layouts_.push_back(lay_out(plan_, group, is_spread_));
    if (plan_.images % group != 0) layouts_.push_back(lay_out(plan_, plan_.images % group, false));
    for (std::size_t i = 0; i < (is_spread_ ? 1 : threads_); ++i) {
      arenas_.push_back(allocate(layouts_[0].bytes + kSlack));
    }
    for (std::size_t i = 0; i < threads_; ++i) scratch_.push_back(std::make_unique<Scratch>());
  }

  bool is_for_one_run() const { return plan_.is_for_one_run; }

  void run(const std::vector<Data>& inputs, const std::vector<Data>& outputs) {
    for (const auto& [number, values] : plan_.fixed_outputs) {
      std::copy(values->begin(), values->end(), static_cast<float*>(outputs[number].values));
    }
    if (layouts_.empty()) return;
    const std::size_t group = layouts_[0].images;
    const std::size_t groups = (plan_.images + group - 1) / group;
    const auto threads = static_cast<int>(threads_);
    if (is_spread_) {
      // Nothing lies over what is zero, so that it stays zero.
      const Work work = make_work(inputs, outputs, 0, 0);
#pragma omp parallel num_threads(threads)
      {
        const Tiles tiles;
        const auto thread = static_cast<std::size_t>(omp_get_thread_num());
        const auto team = static_cast<std::size_t>(omp_get_num_threads());
        for (std::size_t step = 0; step < plan_.steps.size(); ++step) {
          run_step(step, work, thread, team, scratch_[thread].get());
#pragma omp barrier
        }
      }
      return;
    }
    // Each thread takes some images through all steps, so that what a step writes is still near when the next reads it.
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::size_t i = 0; i < groups; ++i) {
      const Tiles tiles;
      const auto thread = static_cast<std::size_t>(omp_get_thread_num());
      const Work work = make_work(inputs, outputs, i, thread);
      for (std::size_t step = 0; step < plan_.steps.size(); ++step) {
        prepare(step, work);
        run_step(step, work, 0, 1, scratch_[thread].get());
      }
    }
  }

 private:
  // Some images on their way through the steps.
  struct Work {
    const std::vector<Data>& inputs;
    const std::vector<Data>& outputs;
    std::size_t first;  // of the images
    const Layout& layout;
    std::uint8_t* arena;

    std::uint8_t* tensor(std::size_t number) const { return arena + layout.tensors[number]; }
  };

  Work make_work(const std::vector<Data>& inputs, const std::vector<Data>& outputs, std::size_t group,
                 std::size_t arena) {
    const std::size_t first = group * layouts_[0].images;
    const Layout& layout = first + layouts_[0].images > plan_.images ? layouts_[1] : layouts_[0];
    return {inputs, outputs, first, layout, arenas_[arena].get()};
  }

  void prepare(std::size_t number, const Work& work) const {
    const Step& step = plan_.steps[number];
    for (const Action& action : step.actions) {
      if (action.kind != Action::Kind::kStore || !plan_.tensors[action.tensor].is_operand) continue;
      clear(plan_.tensors[action.tensor], work.layout.images, work.tensor(action.tensor));
    }
  }

  // Every `team`-th block of a step, from `thread` on.
  void run_step(std::size_t number, const Work& work, std::size_t thread, std::size_t team, Scratch* scratch) const {
    const Step& step = plan_.steps[number];
    if (step.source == Step::Source::kNothing) return;
    if (step.source == Step::Source::kWindows) {
      for (std::size_t image = thread; image < work.layout.images; image += team)
        lay_out_windows(step, work, image, scratch);
      return;
    }
    if (step.source == Step::Source::kProduct) {
      for (std::size_t i = 0; i < step.products.size(); ++i) {
        const std::vector<std::size_t>& windows = work.layout.windows[number][i];
        const Run run = run_of(plan_.tensors[step.input], work.layout.images);
        const std::size_t columns = step.products[i].weights->columns();
        if (step.searches) {
          for (std::size_t block = thread; block < run.blocks(); block += team) {
            scratch->smallest.start();
            for (std::size_t column = 0; column < columns; column += kBlock) {
              multiply(step, step.products[i], windows, work, run.block(block), column, scratch);
            }
          }
        } else {
          // Column by column, so that its weights stay near while all rows pass by, and threads that share a step
          // share its weights.
          const std::size_t all = (columns + kBlock - 1) / kBlock * run.blocks();
          for (std::size_t at = all * thread / team; at < all * (thread + 1) / team; ++at) {
            const std::size_t column = at / run.blocks() * kBlock;
            multiply(step, step.products[i], windows, work, run.block(at % run.blocks()), column, scratch);
          }
        }
      }
      return;
    }
    Block& block = scratch->block;
    const std::size_t rows = work.layout.images * step.extent.pixels();
    for (std::size_t first = thread * kBlock; first < rows; first += team * kBlock) {
      set_places(step.extent.width, work.layout.images, first, rows, &block);
      scratch->smallest.start();
      for (std::size_t column = 0; column < step.extent.channels; column += kBlock) {
        block.first = column;
        block.columns = std::min(kBlock, step.extent.channels - column);
        fill(step, work, &block);
        act(step, work, &block, &scratch->smallest);
      }
    }
  }

  // Pixel x of each image, then pixel x + 1 of each.
  static void set_places(std::size_t width, std::size_t images, std::size_t first, std::size_t end, Block* block) {
    block->rows = std::min(kBlock, end - first);
    Place at = {first % images, first / images / width, first / images % width};
    for (std::size_t row = 0; row < block->rows; ++row) {
      block->places[row] = at;
      if (++at.image < images) continue;
      at.image = 0;
      if (++at.x < width) continue;
      at.x = 0;
      ++at.y;
    }
  }

  // The blocks of rows of a product. Where a line of images fills blocks, each line has blocks of its own, so that none
  // holds windows that are nobody's.
  struct Run {
    std::size_t lines;
    std::size_t rows;  // of a line
    std::size_t next;  // from one line to the next

    std::size_t blocks() const { return lines * ((rows + kBlock - 1) / kBlock); }
    std::pair<std::size_t, std::size_t> block(std::size_t number) const {
      const std::size_t each = (rows + kBlock - 1) / kBlock;
      const std::size_t line = number / each * next;
      return {line + number % each * kBlock, line + rows};
    }
  };

  static Run run_of(const Tensor& input, std::size_t images) {
    const Windows& windows = input.windows;
    const std::size_t pitch = input.pitch;
    if (pitch != windows.grid_width && images * windows.grid_width >= kBlock) {
      return {windows.grid_height, images * windows.grid_width, images * pitch};
    }
    return {1, images * windows.grid_height * pitch, 0};
  }

  void multiply(const Step& step, const Product& product, const std::vector<std::size_t>& windows, const Work& work,
                std::pair<std::size_t, std::size_t> rows, std::size_t column, Scratch* scratch) const {
    const Tensor& input = plan_.tensors[step.input];
    const Weights& weights = *product.weights;
    const std::size_t images = work.layout.images;
    const std::size_t pitch = input.pitch;
    const auto [first, end] = rows;
    const std::size_t channels = weights.columns() / product.places;
    Block& block = scratch->block;
    block.first = column;
    block.columns = std::min(kBlock, weights.columns() - column);
    set_places(pitch, images, first, end, &block);
    weights.multiply(work.tensor(step.input) + first * input.pixel(), windows, input.sheet(images), input.plane(images),
                     block.rows, column, block.values);
    const bool all = pitch == input.windows.grid_width || end != images * input.windows.grid_height * pitch;
    if (step.spread == 1 && all) {
      act(step, work, &block, &scratch->smallest);
      return;
    }
    // What is done to every number alike is done before the parts are taken apart.
    std::size_t done = 0;
    if (product.places > 1) {
      const auto is_alike = [&](const Action& action) {
        return action.kind == Action::Kind::kFunction ||
               (action.kind == Action::Kind::kAddChannels && action.numbers->size() == weights.columns());
      };
      while (done < step.actions.size() && is_alike(step.actions[done])) ++done;
      act(step.actions.data(), step.actions.data() + done, step, work, &block, &scratch->smallest);
    }
    for (std::size_t place = 0; place < product.places; ++place) {
      const std::size_t y = product.offset_y + place / step.spread;
      const std::size_t x = product.offset_x + place % step.spread;
      take_part(block, step, input.windows.grid_width, place * channels, channels, y, x, &scratch->part);
      act(step.actions.data() + done, step.actions.data() + step.actions.size(), step, work, &scratch->part,
          &scratch->smallest);
    }
  }

  // The rows that are windows, and the columns that belong to one place within the stride, where that is in the image.
  static void take_part(const Block& block, const Step& step, std::size_t width, std::size_t column,
                        std::size_t channels, std::size_t y, std::size_t x, Block* part) {
    part->rows = 0;
    part->columns = std::min(channels, block.columns);
    part->first = block.first;
    for (std::size_t row = 0; row < block.rows; ++row) {
      Place at = block.places[row];
      if (at.x >= width) continue;
      at.y = at.y * step.spread + y;
      at.x = at.x * step.spread + x;
      if (at.y >= step.extent.height || at.x >= step.extent.width) continue;
      part->places[part->rows] = at;
      std::copy_n(block.values + row * kBlock + column, part->columns, part->values + part->rows * kBlock);
      ++part->rows;
    }
  }

  // What a step without a product begins with.
  void fill(const Step& step, const Work& work, Block* block) const {
    const float* rows[kBlock];
    switch (step.source) {
      case Step::Source::kImages: {
        const auto* images = static_cast<const float*>(work.inputs[step.input].values);
        for (std::size_t row = 0; row < block->rows; ++row) {
          const float* from = images + index(step.extent, work, block->places[row], block->first);
          float* to = block->values + row * kBlock;
          for (std::size_t column = 0; column < block->columns; ++column)
            to[column] = from[column * step.extent.pixels()];
        }
        return;
      }
      case Step::Source::kCodes: {
        const Data& codes = work.inputs[step.input];
        const std::size_t channels = step.extent.channels;
        const auto last = static_cast<float>(step.codebook->size() / channels - 1);
        for (std::size_t row = 0; row < block->rows; ++row) {
          const std::size_t at = index({1, step.extent.height, step.extent.width}, work, block->places[row], 0);
          const float code = codes.dtype == mxnet::ext::kInt32
                                 ? static_cast<float>(static_cast<const std::int32_t*>(codes.values)[at])
                                 : static_cast<const float*>(codes.values)[at];
          // Beyond the codebook is its nearest end, as MXNet has it.
          const auto number = static_cast<std::size_t>(std::min(std::max(code, 0.0F), last));
          rows[row] = step.codebook->data() + number * channels + block->first;
        }
        break;
      }
      default:
        set_rows(step.input, work, *block, rows);
    }
    load(rows, block);
  }

  // Of a value of an image in a tensor (N, C, H, W).
  static std::size_t index(const Extent& extent, const Work& work, const Place& at, std::size_t channel) {
    return (((work.first + at.image) * extent.channels + channel) * extent.height + at.y) * extent.width + at.x;
  }

  // The windows of an image, each row of a channel copied as it lies.
  void lay_out_windows(const Step& step, const Work& work, std::size_t image, Scratch* scratch) const {
    const Tensor& tensor = plan_.tensors[step.output];
    const Windows& windows = tensor.windows;
    const Extent& extent = step.extent;
    // The image as the windows see it: with what is around it, and some more, for rows are read four numbers at a time.
    const std::size_t height = (windows.grid_height - 1) * windows.stride + windows.rows;
    const std::size_t seen = (windows.grid_width - 1) * windows.stride + windows.columns;
    const std::size_t width = seen + kBlock;
    std::vector<float>& framed = scratch->framed;
    framed.assign(extent.channels * height * width, 0.0F);
    const auto top = static_cast<std::size_t>(-windows.y);
    const auto left = static_cast<std::size_t>(-windows.x);
    const std::size_t rows = height > top ? std::min(extent.height, height - top) : 0;
    const std::size_t columns = seen > left ? std::min(extent.width, seen - left) : 0;
    const auto* pixels = static_cast<const float*>(work.inputs[step.input].values) +
                         (work.first + image) * extent.channels * extent.pixels();
    for (std::size_t channel = 0; channel < extent.channels; ++channel) {
      for (std::size_t y = 0; y < rows; ++y) {
        float* row = framed.data() + (channel * height + y + top) * width + left;
        std::copy_n(pixels + (channel * extent.height + y) * extent.width, columns, row);
        for (const Action& action : step.actions) apply(action.function, action.a, action.b, row, columns);
      }
    }
    const std::size_t whole = windows.rows * windows.columns * extent.channels;
    std::vector<float>& line = scratch->line;
    line.resize(windows.grid_width * whole + kBlock);
    for (std::size_t y = 0; y < windows.grid_height; ++y) {
      float* to = line.data();
      for (std::size_t x = 0; x < windows.grid_width; ++x) {
        for (std::size_t channel = 0; channel < extent.channels; ++channel) {
          const float* from = framed.data() + (channel * height + y * windows.stride) * width + x * windows.stride;
          for (std::size_t row = 0; row < windows.rows; ++row, from += width, to += windows.columns) {
            // Four at a time; what is too much is written over by the next.
            for (std::size_t column = 0; column < windows.columns; column += 4)
              std::memcpy(to + column, from + column, 16);
          }
        }
      }
      std::uint8_t* place = work.tensor(step.output) + y * tensor.line(work.layout.images) + image * tensor.pixel();
      for (std::size_t x = 0; x < windows.grid_width; ++x, place += work.layout.images * tensor.pixel()) {
        store_numbers(tensor.format, place, tensor.sheet(work.layout.images), tensor.plane(work.layout.images),
                      line.data() + x * whole, whole);
      }
    }
  }

  // Where the rows of a block are in a tensor of floats.
  template <typename Pointer>
  void set_rows(std::size_t number, const Work& work, const Block& block, Pointer* rows) const {
    const Extent& extent = plan_.tensors[number].extent;
    auto* base = reinterpret_cast<float*>(work.tensor(number)) + block.first;
    for (std::size_t row = 0; row < block.rows; ++row) {
      const Place& at = block.places[row];
      rows[row] = base + ((at.y * extent.width + at.x) * work.layout.images + at.image) * extent.channels;
    }
  }

  void keep(std::size_t number, const Work& work, const Block& block) const {
    const Tensor& tensor = plan_.tensors[number];
    const std::size_t image = tensor.pixel();
    const std::size_t* lines = work.layout.rows[number].data();
    const std::size_t from = block.first * element_bytes(tensor.format);
    std::uint8_t* base =
        work.tensor(number) + from / kChunkBytes * tensor.sheet(work.layout.images) + from % kChunkBytes;
    std::uint8_t* places[kBlock];
    for (std::size_t y = 0; y < work.layout.rows[number].size(); y += tensor.extent.height) {
      const std::size_t* pixels = work.layout.pixels[number].data();
      for (std::size_t x = 0; x < work.layout.pixels[number].size(); x += tensor.extent.width) {
        for (std::size_t row = 0; row < block.rows; ++row) {
          const Place& at = block.places[row];
          const std::size_t line = lines[y + at.y];
          const std::size_t pixel = pixels[x + at.x];
          places[row] = line == kNowhere || pixel == kNowhere ? nullptr : base + line + pixel + at.image * image;
        }
        store_operand(tensor.format, places, tensor.plane(work.layout.images), block);
      }
    }
  }

  void act(const Step& step, const Work& work, Block* block, Smallest* smallest) const {
    act(step.actions.data(), step.actions.data() + step.actions.size(), step, work, block, smallest);
  }

  void act(const Action* from, const Action* to, const Step& step, const Work& work, Block* block,
           Smallest* smallest) const {
    for (; from != to; ++from) {
      const Action& action = *from;
      switch (action.kind) {
        case Action::Kind::kFunction:
          apply(action.function, action.a, action.b, block);
          break;
        case Action::Kind::kAddChannels:
          add_channels(action.numbers->data(), block);
          break;
        case Action::Kind::kScaleChannels:
          scale_channels(action.numbers->data(), block);
          break;
        case Action::Kind::kAddTensor: {
          const float* rows[kBlock];
          set_rows(action.tensor, work, *block, rows);
          add(rows, block);
          break;
        }
        case Action::Kind::kSmallest:
          smallest->look(*block);
          if (block->first + block->columns < step.extent.channels) return;
          smallest->give(block);
          block->first = 0;
          block->columns = 1;
          break;
        case Action::Kind::kStore:
          if (plan_.tensors[action.tensor].is_operand) {
            keep(action.tensor, work, *block);
          } else {
            float* rows[kBlock];
            set_rows(action.tensor, work, *block, rows);
            store(rows, *block);
          }
          break;
        case Action::Kind::kOutput:
          give(step, action, work, *block);
          break;
      }
    }
  }

  static void give(const Step& step, const Action& action, const Work& work, const Block& block) {
    const Data& output = work.outputs[action.output];
    const std::size_t channels = action.channels;
    const Extent extent = {channels, step.extent.height, step.extent.width};
    const Extent rows_of = {1, step.extent.height, step.extent.width};
    const std::size_t stride = action.channels_last ? 1 : extent.pixels();
    for (std::size_t row = 0; row < block.rows; ++row) {
      const std::size_t at = action.channels_last ? index(rows_of, work, block.places[row], 0) * channels + block.first
                                                  : index(extent, work, block.places[row], block.first);
      const float* from = block.values + row * kBlock;
      if (output.dtype == mxnet::ext::kInt32) {
        auto* to = static_cast<std::int32_t*>(output.values) + at;
        for (std::size_t column = 0; column < block.columns; ++column) {
          to[column * stride] = static_cast<std::int32_t>(from[column]);
        }
      } else {
        auto* to = static_cast<float*>(output.values) + at;
        for (std::size_t column = 0; column < block.columns; ++column) to[column * stride] = from[column];
      }
    }
  }

  Plan plan_;
  std::size_t threads_;
  bool is_spread_ = false;       // a step's blocks over the threads, not the images
  std::vector<Layout> layouts_;  // of all groups of images, and of the last one, if it is smaller
  std::vector<Memory> arenas_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

Program::Program(const Graph& graph, const std::vector<Data>& inputs, int threads)
    : impl_(std::make_unique<Impl>(graph, inputs, threads)) {}
Program::~Program() = default;

bool Program::is_for_one_run() const { return impl_->is_for_one_run(); }

void Program::run(const std::vector<Data>& inputs, const std::vector<Data>& outputs) { impl_->run(inputs, outputs); }

}  // namespace vqvae::kernels
