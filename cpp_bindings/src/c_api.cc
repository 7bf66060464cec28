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

// A caller's array: its values, the bytes it says it has, and what it must be.
template <typename Item>
struct Array {
  Item* items;
  std::size_t size;
  DType dtype;
  const vqvae::Shape& extents;
  const char* name;

  // The bytes are exactly those of the extents, which also bounds what is allocated for them.
  void check() const {
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
    given(items, name);
  }

  Tensor copy() const {
    Tensor tensor;
    tensor.dtype = dtype;
    tensor.shape = extents;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(items);
    tensor.data.assign(bytes, bytes + size);
    return tensor;
  }
};

// Fill one array with what the predictor makes of the other.
template <typename In, typename Out, typename Work>
void convert(vqvae_predictor* predictor, const Array<In>& in, const Array<Out>& out, const Work& work) {
  in.check();
  out.check();
  const Tensor fed = in.copy();
  const std::scoped_lock lock(predictor->mutex);
  const Tensor result = work(predictor->predictor, fed);
  if (result.data.size() != out.size) {
    throw vqvae::RuntimeFailure("result", "is not of the size that was asked for");
  }
  std::memcpy(out.items, result.data.data(), out.size);
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
    case VQVAE_FUSED:
      return vqvae::Engine::kFused;
    default:
      throw UsageError("options.engine", "is " + std::to_string(number) + ", not 0, 1, 2 or 3");
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
    convert(predictor, Array<const std::uint8_t>{images, images_size, DType::kUint8, shapes.images, "images"},
            Array<std::int32_t>{codes, codes_size, DType::kInt32, shapes.codes, "codes"},
            [](vqvae::Predictor& opened, const Tensor& fed) { return opened.encode(fed); });
  });
}

int vqvae_decode(vqvae_predictor* predictor, const std::int32_t* codes, std::size_t codes_size, std::int64_t count,
                 std::int64_t height, std::int64_t width, std::uint8_t* images, std::size_t images_size) {
  return guarded([&] {
    const Shapes shapes(*given(predictor, "predictor"), count, height, width);
    convert(predictor, Array<const std::int32_t>{codes, codes_size, DType::kInt32, shapes.codes, "codes"},
            Array<std::uint8_t>{images, images_size, DType::kUint8, shapes.images, "images"},
            [&](vqvae::Predictor& opened, const Tensor& fed) { return opened.decode(fed, height, width); });
  });
}

int vqvae_reconstruct(vqvae_predictor* predictor, const std::uint8_t* images, std::size_t images_size,
                      std::int64_t count, std::int64_t height, std::int64_t width, std::uint8_t* result,
                      std::size_t result_size) {
  return guarded([&] {
    const Shapes shapes(*given(predictor, "predictor"), count, height, width);
    convert(predictor, Array<const std::uint8_t>{images, images_size, DType::kUint8, shapes.images, "images"},
            Array<std::uint8_t>{result, result_size, DType::kUint8, shapes.images, "result"},
            [](vqvae::Predictor& opened, const Tensor& fed) { return opened.reconstruct(fed); });
  });
}

const char* vqvae_last_error(void) { return last_error; }

const char* vqvae_version(void) { return VQVAE_VERSION; }
