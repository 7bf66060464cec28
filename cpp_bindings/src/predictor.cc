#include "vqvae/predictor.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "limits.hpp"
#include "refusal.hpp"
#include "tiles.hpp"
#include "vqvae/error.hpp"
#include "vqvae/image.hpp"
#include "vqvae/reach.hpp"

namespace vqvae {
namespace {

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

void record(TraceWriter* trace, const std::string& stage, Network* network, const std::string& input,
            const Tensor& value) {
  trace->add(stage, input, "input", value);
  network->taps({{input, value}}, [&](const Tap& tap) { trace->add(stage, tap.name, tap.op, tap.value); });
}

// How many latent pixels: N, h and w.
struct Size {
  std::int64_t count = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;

  bool operator==(const Size& other) const {
    return count == other.count && height == other.height && width == other.width;
  }
};

// One graph of a bundle, and how its runs are divided. A latent pixel is `in` steps of its input along either side, and
// `out` of its output.
class Half {
 public:
  using Shapes = std::function<std::pair<Shape, Shape>(const Size&)>;

  // `shapes` gives the shapes of the input and the output for a number of latent pixels.
  Half(Export files, const char* input, std::size_t first_side, std::int64_t in, std::int64_t out, Shapes shapes,
       Engine engine, Fusion fusion, std::size_t memory_limit, bool prove)
      : name_(files.graph.name),
        input_(input),
        in_(in),
        out_(out),
        shapes_(std::move(shapes)),
        memory_limit_(memory_limit),
        reach_(find_reach(files.graph, input, first_side)),
        prove_(prove),
        network_(std::move(files), {input}, engine, fusion) {
    if (reach_ && (reach_->down * out_ != in_ * reach_->up)) reach_.reset();
    if (!prove_) return;
    // Tiles and paddings rely on the shapes, so they are proved, at sides that are not equal.
    constexpr Size kSome = {2, 2, 3};
    const std::vector<Shape> outputs = estimate(kSome).outputs;
    const auto [given, wanted] = shapes_(kSome);
    if (outputs.size() != 1 || outputs[0] != wanted) {
      throw InputError(name_, "gives " + (outputs.empty() ? "nothing" : to_string(outputs[0])) + " for " +
                                  to_string(given) + ", not " + to_string(wanted) + "; " + kCopyBundle);
    }
  }

  Network& network() { return network_; }

  // The only output of one run.
  Tensor run(const Tensor& in, DType dtype, const Size& size) {
    std::vector<Tensor> outputs = network_.run({{input_, in}});
    const Shape wanted = shapes_(size).second;
    const bool fits = outputs.size() == 1 && outputs[0].dtype == dtype && outputs[0].shape.size() == wanted.size() &&
                      (!prove_ || outputs[0].shape == wanted);
    if (!fits) {
      throw InputError(
          name_, std::string("does not give ") + dtype_name(dtype) + " " + to_string(wanted) + "; " + kCopyBundle);
    }
    return std::move(outputs.front());
  }

  // Give the parts of `in` that fit into memory to `one`, and put what it makes of them together.
  void run_in_parts(const Tensor& in, const Size& size, const std::function<Tensor(const Tensor&)>& one, Tensor* out,
                    const Predictor::Progress& progress) {
    const Size part = part_of(size);
    if (part == size) {
      *out = one(in);
      return;
    }
    const std::vector<Tile> rows = cover(size.height, part.height, before(), after());
    const std::vector<Tile> columns = cover(size.width, part.width, before(), after());
    const auto batches = static_cast<std::size_t>(divide_up(size.count, part.count));
    const std::size_t total = batches * rows.size() * columns.size();
    std::size_t done = 0;
    for (std::int64_t first = 0; first < size.count; first += part.count) {
      const std::int64_t count = std::min(part.count, size.count - first);
      for (const Tile& row : rows) {
        for (const Tile& column : columns) {
          const Part taken = {first, row.start * in_, column.start * in_, count, part.height * in_, part.width * in_};
          const Part kept = {0,     (row.begin - row.start) * out_, (column.begin - column.start) * out_,
                             count, (row.end - row.begin) * out_,   (column.end - column.begin) * out_};
          paste(one(cut(in, taken)), kept, out, first, row.begin * out_, column.begin * out_);
          if (progress) progress(++done, total);
        }
      }
    }
  }

 private:
  // In latent pixels.
  std::int64_t before() const { return reach_ ? divide_up(reach_->before, in_) : 0; }
  std::int64_t after() const { return reach_ ? divide_up(reach_->after, in_) : 0; }

  Estimate estimate(const Size& size) const { return network_.estimate({{input_, shapes_(size).first}}); }

  std::size_t bytes(const Size& size) const {
    const Estimate found = estimate(size);
    return found.largest > kMaxElements ? std::numeric_limits<std::size_t>::max() : found.bytes;
  }

  // What fits into memory.
  const Size& part_of(const Size& size) {
    if (size == whole_) return part_;
    part_ = size;
    const std::size_t limit = memory_limit_ > 0 ? memory_limit_ : std::numeric_limits<std::size_t>::max() - 1;
    if (bytes(size) > limit) {
      const std::size_t one = bytes({1, size.height, size.width});
      part_ =
          one <= limit ? Size{static_cast<std::int64_t>(limit / one), size.height, size.width} : tile_of(size, limit);
    }
    whole_ = size;
    return part_;
  }

  // The largest tile that fits.
  Size tile_of(const Size& size, std::size_t limit) const {
    const auto tile = [&size](std::int64_t side) {
      return Size{1, std::min(side, size.height), std::min(side, size.width)};
    };
    std::int64_t low = before() + after() + 1;
    std::int64_t high = std::max(size.height, size.width);
    const std::size_t least = bytes(reach_ ? tile(low) : size);
    if (!reach_ || least > limit) {
      throw InputError(name_, (reach_ ? "takes " : "cannot be run in tiles, and takes ") + mebibytes(least) +
                                  (reach_ ? " for the smallest tile" : "") + ", and the memory limit is " +
                                  mebibytes(limit) + " for each graph; raise it (--memory)");
    }
    while (low < high) {
      const std::int64_t middle = low + (high - low + 1) / 2;
      if (bytes(tile(middle)) <= limit) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return tile(low);
  }

  std::string name_;
  const char* input_;
  std::int64_t in_;
  std::int64_t out_;
  Shapes shapes_;
  std::size_t memory_limit_;
  std::optional<Reach> reach_;  // None if it cannot be run in tiles.
  bool prove_;
  Network network_;
  Size whole_;  // What was asked for last, and the part that fits.
  Size part_;
};

}  // namespace

class Predictor::Impl {
 public:
  Impl(Bundle bundle, Engine engine, Fusion fusion, std::size_t memory_limit, bool prove)
      : channels(bundle.channels),
        stride(bundle.stride),
        num_embeddings(bundle.num_embeddings),
        digest(std::move(bundle.digest)),
        encoder_(
            std::move(bundle.encoder), kImagesInput, kFirstSideOfImages, stride, 1,
            [this](const Size& size) { return std::make_pair(image_shape(size), code_shape(size)); }, engine, fusion,
            memory_limit / 2, prove),
        decoder_(
            std::move(bundle.decoder), kCodesInput, kFirstSideOfCodes, 1, stride,
            [this](const Size& size) { return std::make_pair(code_shape(size), image_shape(size)); }, engine, fusion,
            memory_limit / 2, prove) {}

  // Of images whose sides the stride divides.
  Tensor encode(const Tensor& images) {
    const Size size = {images.shape[0], images.shape[1] / stride, images.shape[2] / stride};
    Tensor codes(DType::kInt32, code_shape(size));
    const auto one = [this](const Tensor& part) {
      return encoder_.run(to_tensor(part), DType::kInt32,
                          {part.shape[0], part.shape[1] / stride, part.shape[2] / stride});
    };
    encoder_.run_in_parts(images, size, one, &codes, progress);
    return codes;
  }

  Tensor decode(const Tensor& codes) {
    return decoder_.run(codes, DType::kFloat32, {codes.shape[0], codes.shape[1], codes.shape[2]});
  }

  Tensor decode_to_images(const Tensor& codes) {
    const Size size = {codes.shape[0], codes.shape[1], codes.shape[2]};
    Tensor images(DType::kUint8, {size.count, size.height * stride, size.width * stride, channels});
    const auto one = [this](const Tensor& part) { return to_images(decode(part)); };
    decoder_.run_in_parts(codes, size, one, &images, progress);
    return images;
  }

  void record_taps(const Tensor& data, const Tensor& codes, TraceWriter* trace) {
    record(trace, "encoder", &encoder_.network(), kImagesInput, data);
    record(trace, "decoder", &decoder_.network(), kCodesInput, codes);
  }

  const std::int64_t channels;
  const std::int64_t stride;
  const std::int64_t num_embeddings;
  const std::string digest;
  Progress progress;

 private:
  Shape image_shape(const Size& size) const {
    return {size.count, channels, size.height * stride, size.width * stride};
  }
  static Shape code_shape(const Size& size) { return {size.count, size.height, size.width}; }

  Half encoder_;
  Half decoder_;
};

Predictor::Predictor(Bundle bundle, Engine engine, Fusion fusion, std::size_t memory_limit, bool prove)
    : impl_(std::make_unique<Impl>(std::move(bundle), engine, fusion, memory_limit, prove)) {}
Predictor::Predictor(Predictor&&) noexcept = default;
Predictor& Predictor::operator=(Predictor&&) noexcept = default;
Predictor::~Predictor() = default;

std::int64_t Predictor::channels() const { return impl_->channels; }
std::int64_t Predictor::stride() const { return impl_->stride; }
std::int64_t Predictor::num_embeddings() const { return impl_->num_embeddings; }
const std::string& Predictor::digest() const { return impl_->digest; }
void Predictor::set_progress(Progress progress) { impl_->progress = std::move(progress); }

void Predictor::check_images(const Tensor& images, const std::string& name) const {
  if (images.dtype != DType::kUint8 || images.shape.size() != 4 || images.data.empty()) {
    throw InputError(name, "must hold uint8 images of shape (N, H, W, C)");
  }
  if (images.shape[3] != channels()) {
    throw InputError(
        name, "has " + std::to_string(images.shape[3]) + " channels, the network takes " + std::to_string(channels()));
  }
}

void Predictor::check_codes(const Tensor& codes, const std::string& name) const {
  if (codes.dtype != DType::kInt32 || codes.shape.size() != 3 || codes.data.empty()) {
    throw InputError(name, std::string("holds ") + dtype_name(codes.dtype) + " " + to_string(codes.shape) +
                               "; codes are int32 (N, h, w)");
  }
  const auto* first = codes.as<std::int32_t>();
  const auto [low, high] = std::minmax_element(first, first + element_count(codes.shape));
  if (*low < 0 || *high >= num_embeddings()) {
    throw InputError(name, "holds codes " + std::to_string(*low) + ".." + std::to_string(*high) +
                               "; the codebook has 0.." + std::to_string(num_embeddings() - 1));
  }
}

Tensor Predictor::encode(const Tensor& images) {
  check_images(images);
  return impl_->encode(pad_to(images, stride()));
}

Tensor Predictor::decode(const Tensor& codes) {
  check_codes(codes);
  return impl_->decode(codes);
}

Tensor Predictor::decode(const Tensor& codes, std::int64_t height, std::int64_t width) {
  check_codes(codes);
  if (codes.shape[1] != divide_up(height, stride()) || codes.shape[2] != divide_up(width, stride())) {
    throw InputError("codes", "are " + to_string(codes.shape) + ", not those of an image of " + std::to_string(width) +
                                  "x" + std::to_string(height));
  }
  return crop(impl_->decode_to_images(codes), height, width);
}

Tensor Predictor::reconstruct(const Tensor& images) { return decode(encode(images), images.shape[1], images.shape[2]); }

Tensor Predictor::reconstruct(const Tensor& images, TraceWriter* trace, bool taps) {
  check_images(images);
  const Tensor padded = pad_to(images, stride());
  const Tensor codes = impl_->encode(padded);
  const Tensor reconstruction = decode(codes);
  // Where nothing was proved, it may be of any size.
  Tensor result = crop(to_images(reconstruction), std::min(images.shape[1], reconstruction.shape[2]),
                       std::min(images.shape[2], reconstruction.shape[3]));
  const Tensor data = to_tensor(padded);
  trace->add("input", "pixels", "input", images);
  trace->add("input", kImagesInput, "input", data);
  if (taps) impl_->record_taps(data, codes, trace);
  trace->add("output", "codes", "output", codes);
  trace->add("output", "reconstruction", "output", reconstruction);
  trace->add("output", "image", "output", result);
  return result;
}

}  // namespace vqvae
