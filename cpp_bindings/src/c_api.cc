// The C API: arguments are checked, exceptions become codes, and nothing is written until the result is whole.
#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "vqvae/error.hpp"
#include "vqvae/predictor.hpp"
#include "vqvae/threads.hpp"
#include "vqvae/vqvae.h"

struct vqvae_predictor {
  explicit vqvae_predictor(vqvae::Predictor made) : predictor(std::move(made)) {}

  std::mutex mutex;
  vqvae::Predictor predictor;
};

namespace {

using vqvae::DType;
using vqvae::ExitCode;
using vqvae::Tensor;
using vqvae::UsageError;

// Room of a fixed size: there may be no memory for the message that there is no memory.
constexpr std::size_t kMessageBytes = 4096;
thread_local char last_error[kMessageBytes];

int fail(ExitCode code, const char* message) {
  std::size_t size = std::min(std::strlen(message), kMessageBytes - 1);
  // Not within a character of UTF-8.
  while (size > 0 && (static_cast<unsigned char>(message[size]) & 0xC0U) == 0x80U) --size;
  std::memcpy(last_error, message, size);
  last_error[size] = '\0';
  return static_cast<int>(code);
}

// Call a function; gives the code of what became of it.
template <typename Function>
int guarded(const Function& function) noexcept {
  try {
    function();
    return VQVAE_DONE;
  } catch (const vqvae::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::kFailed, "memory: there is not enough of it");
  } catch (const std::exception& error) {
    return fail(ExitCode::kFailed, error.what());
  } catch (...) {
    return fail(ExitCode::kFailed, "internal: an unknown error");
  }
}

template <typename Pointer>
Pointer* given(Pointer* pointer, const char* name) {
  if (pointer == nullptr) throw UsageError(name, "is NULL");
  return pointer;
}

std::int64_t side(std::int64_t value, const char* name) {
  if (value < 1 || value > std::numeric_limits<std::int32_t>::max()) {
    throw UsageError(name, "is " + std::to_string(value) + ", not 1 to 2^31 - 1");
  }
  return value;
}

// A shape whose bytes are exactly those of the caller's buffer, which also bounds what is allocated for it.
vqvae::Shape shape(const vqvae::Shape& extents, DType dtype, std::size_t size, const char* name) {
  std::size_t bytes = vqvae::item_size(dtype);
  bool fits = true;
  for (const std::int64_t extent : extents) {
    const auto factor = static_cast<std::size_t>(extent);
    fits = fits && bytes <= std::numeric_limits<std::size_t>::max() / factor;
    if (fits) bytes *= factor;
  }
  if (!fits || bytes != size) {
    throw UsageError(name, "has " + std::to_string(size) + " bytes; " + dtype_name(dtype) + " " +
                               vqvae::to_string(extents) + " has " +
                               (fits ? std::to_string(bytes) : "more than there can be"));
  }
  return extents;
}

template <typename Item>
Tensor copy_of(const Item* items, DType dtype, vqvae::Shape extents) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(extents);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(items);
  tensor.data.assign(bytes, bytes + vqvae::element_count(tensor.shape) * sizeof(Item));
  return tensor;
}

void copy_to(const Tensor& tensor, void* buffer, std::size_t size) {
  if (tensor.data.size() != size) throw vqvae::RuntimeFailure("result", "is not of the size that was asked for");
  std::memcpy(buffer, tensor.data.data(), size);
}

std::int64_t codes_along(const vqvae_predictor& handle, std::int64_t pixels) {
  const std::int64_t stride = handle.predictor.stride();
  return (pixels + stride - 1) / stride;
}

// The shapes of both arrays of a call.
struct Shapes {
  Shapes(const vqvae_predictor& handle, std::int64_t count, std::int64_t height, std::int64_t width)
      : images{side(count, "count"), side(height, "height"), side(width, "width"), handle.predictor.channels()},
        codes{count, codes_along(handle, height), codes_along(handle, width)} {}

  vqvae::Shape images;
  vqvae::Shape codes;
};

vqvae::Engine engine(std::int32_t number) {
  switch (number) {
    case VQVAE_CACHEDOP:
      return vqvae::Engine::kCachedOp;
    case VQVAE_EXECUTOR:
      return vqvae::Engine::kExecutor;
    case VQVAE_PREDICT:
      return vqvae::Engine::kPredict;
    default:
      throw UsageError("options.engine", "is " + std::to_string(number) + ", not 0, 1 or 2");
  }
}

// The caller's options, which may be of an older version, or of a newer one that asks for nothing new.
vqvae_options read_options(const vqvae_options* options) {
  vqvae_options result = {};
  if (options == nullptr) return result;
  const auto* bytes = reinterpret_cast<const unsigned char*>(options);
  constexpr std::size_t kLargest = 4096;
  const std::size_t size = options->size;
  if (size < sizeof options->size || size > kLargest ||
      std::any_of(bytes + std::min(size, sizeof result), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    throw UsageError("options.size", "is " + std::to_string(size) + ", not sizeof(vqvae_options)");
  }
  std::memcpy(&result, options, std::min(size, sizeof result));
  if (result.no_verify != 0 && result.no_verify != 1) throw UsageError("options.no_verify", "is neither 0 nor 1");
  if (result.reserved != 0) throw UsageError("options.reserved", "is not 0");
  return result;
}

}  // namespace

int vqvae_open(const char* bundle, const vqvae_options* options, vqvae_predictor** predictor) {
  return guarded([&] {
    *given(predictor, "predictor") = nullptr;
    given(bundle, "bundle");
    const vqvae_options wanted = read_options(options);
    const vqvae::Engine runs = engine(wanted.engine);
    if (wanted.threads != 0) vqvae::use_threads(wanted.threads);
    *predictor = new vqvae_predictor(vqvae::Predictor(vqvae::read_bundle(bundle, wanted.no_verify == 0), runs,
                                                      vqvae::Fusion::kSafe, wanted.memory_limit));
  });
}

void vqvae_close(vqvae_predictor* predictor) {
  guarded([&] { delete predictor; });
}

int vqvae_info(const vqvae_predictor* predictor, vqvae_properties* properties) {
  return guarded([&] {
    const vqvae::Predictor& opened = given(predictor, "predictor")->predictor;
    if (given(properties, "properties")->size != sizeof *properties) {
      throw UsageError("properties.size", "is " + std::to_string(properties->size) + ", not sizeof(vqvae_properties)");
    }
    vqvae_properties result = {sizeof result, opened.channels(), opened.stride(), opened.num_embeddings(), {}};
    opened.digest().copy(result.digest, sizeof result.digest - 1);
    *properties = result;
  });
}

int vqvae_code_shape(const vqvae_predictor* predictor, std::int64_t height, std::int64_t width,
                     std::int64_t* code_height, std::int64_t* code_width) {
  return guarded([&] {
    const Shapes shapes(*given(predictor, "predictor"), 1, height, width);
    given(code_height, "code_height");
    *given(code_width, "code_width") = shapes.codes[2];
    *code_height = shapes.codes[1];
  });
}

int vqvae_encode(vqvae_predictor* predictor, const std::uint8_t* images, std::size_t images_size, std::int64_t count,
                 std::int64_t height, std::int64_t width, std::int32_t* codes, std::size_t codes_size) {
  return guarded([&] {
    const Shapes shapes(*given(predictor, "predictor"), count, height, width);
    const vqvae::Shape in = shape(shapes.images, DType::kUint8, images_size, "images");
    shape(shapes.codes, DType::kInt32, codes_size, "codes");
    given(codes, "codes");
    const Tensor fed = copy_of(given(images, "images"), DType::kUint8, in);
    const std::scoped_lock lock(predictor->mutex);
    copy_to(predictor->predictor.encode(fed), codes, codes_size);
  });
}

int vqvae_decode(vqvae_predictor* predictor, const std::int32_t* codes, std::size_t codes_size, std::int64_t count,
                 std::int64_t height, std::int64_t width, std::uint8_t* images, std::size_t images_size) {
  return guarded([&] {
    const Shapes shapes(*given(predictor, "predictor"), count, height, width);
    const vqvae::Shape in = shape(shapes.codes, DType::kInt32, codes_size, "codes");
    shape(shapes.images, DType::kUint8, images_size, "images");
    given(images, "images");
    const Tensor fed = copy_of(given(codes, "codes"), DType::kInt32, in);
    const std::scoped_lock lock(predictor->mutex);
    copy_to(predictor->predictor.decode(fed, height, width), images, images_size);
  });
}

int vqvae_reconstruct(vqvae_predictor* predictor, const std::uint8_t* images, std::size_t images_size,
                      std::int64_t count, std::int64_t height, std::int64_t width, std::uint8_t* result,
                      std::size_t result_size) {
  return guarded([&] {
    const Shapes shapes(*given(predictor, "predictor"), count, height, width);
    const vqvae::Shape in = shape(shapes.images, DType::kUint8, images_size, "images");
    shape(shapes.images, DType::kUint8, result_size, "result");
    given(result, "result");
    const Tensor fed = copy_of(given(images, "images"), DType::kUint8, in);
    const std::scoped_lock lock(predictor->mutex);
    copy_to(predictor->predictor.reconstruct(fed), result, result_size);
  });
}

const char* vqvae_last_error(void) { return last_error; }

const char* vqvae_version(void) { return VQVAE_VERSION; }
