#include "vqvae/predictor.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "vqvae/error.hpp"
#include "vqvae/image.hpp"

namespace vqvae {
namespace {

constexpr const char* kImagesInput = "data";
constexpr const char* kCodesInput = "codes";

// The only output of a run.
Tensor single(std::vector<Tensor> outputs) {
  if (outputs.size() != 1) throw InputError("bundle", "a graph has " + std::to_string(outputs.size()) + " outputs");
  return std::move(outputs.front());
}

void record(TraceWriter* trace, const std::string& stage, Network* network, const std::string& input,
            const Tensor& value) {
  trace->add(stage, input, "input", value);
  network->taps({{input, value}}, [&](const Tap& tap) { trace->add(stage, tap.name, tap.op, tap.value); });
}

}  // namespace

Predictor::Predictor(Bundle bundle, Engine engine, Fusion fusion)
    : channels_(bundle.channels),
      stride_(bundle.stride),
      num_embeddings_(bundle.num_embeddings),
      encoder_(std::move(bundle.encoder), {kImagesInput}, engine, fusion),
      decoder_(std::move(bundle.decoder), {kCodesInput}, engine, fusion) {}

void Predictor::check_images(const Tensor& images, const std::string& name) const {
  if (images.dtype != DType::kUint8 || images.shape.size() != 4 || images.data.empty()) {
    throw InputError(name, "must hold uint8 images of shape (N, H, W, C)");
  }
  if (images.shape[3] != channels_) {
    throw InputError(
        name, "has " + std::to_string(images.shape[3]) + " channels, the network takes " + std::to_string(channels_));
  }
  if (images.shape[1] % stride_ != 0 || images.shape[2] % stride_ != 0) {
    throw InputError(name, "is " + std::to_string(images.shape[2]) + "x" + std::to_string(images.shape[1]) +
                               "; the network takes sides that " + std::to_string(stride_) + " divides");
  }
}

Tensor Predictor::encode(const Tensor& images) {
  check_images(images);
  return single(encoder_.run({{kImagesInput, to_tensor(images)}}));
}

Tensor Predictor::decode(const Tensor& codes) {
  if (codes.dtype != DType::kInt32 || codes.shape.size() != 3 || codes.data.empty()) {
    throw InputError("codes", std::string("are ") + dtype_name(codes.dtype) + " " + to_string(codes.shape) +
                                  "; the network takes int32 (N, h, w)");
  }
  const auto* first = codes.as<std::int32_t>();
  const auto [low, high] = std::minmax_element(first, first + element_count(codes.shape));
  if (*low < 0 || *high >= num_embeddings_) {
    throw InputError("codes", "are " + std::to_string(*low) + ".." + std::to_string(*high) + "; the codebook has 0.." +
                                  std::to_string(num_embeddings_ - 1));
  }
  return single(decoder_.run({{kCodesInput, codes}}));
}

Tensor Predictor::reconstruct(const Tensor& images) { return to_images(decode(encode(images))); }

Tensor Predictor::reconstruct(const Tensor& images, TraceWriter* trace, bool taps) {
  const Tensor codes = encode(images);
  const Tensor reconstruction = decode(codes);
  Tensor result = to_images(reconstruction);
  trace->add("input", "pixels", "input", images);
  const Tensor data = to_tensor(images);
  trace->add("input", kImagesInput, "input", data);
  if (taps) {
    record(trace, "encoder", &encoder_, kImagesInput, data);
    record(trace, "decoder", &decoder_, kCodesInput, codes);
  }
  trace->add("output", "codes", "output", codes);
  trace->add("output", "reconstruction", "output", reconstruction);
  trace->add("output", "image", "output", result);
  return result;
}

}  // namespace vqvae
