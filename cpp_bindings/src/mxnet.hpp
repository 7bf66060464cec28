// MXNet's C API: loaded at run time, with handles that free themselves and errors that throw.
//
// The library is opened by us, not by the dynamic linker, because it reads OMP_NUM_THREADS once, when it is loaded, and
// would leave half of the processors idle (docs/architecture.md, "All processors").
#ifndef VQVAE_SRC_MXNET_HPP_
#define VQVAE_SRC_MXNET_HPP_

#include <mxnet/c_api.h>
#include <mxnet/c_predict_api.h>
#include <nnvm/c_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "vqvae/tensor.hpp"

namespace vqvae::mxnet {

// The functions in use, by their own names.
#define VQVAE_MXNET_FUNCTIONS(X)  \
  X(MXGetLastError)               \
  X(MXGetVersion)                 \
  X(MXListAllOpNames)             \
  X(MXSetIsNumpyShape)            \
  X(MXSymbolCreateFromJSON)       \
  X(MXSymbolSaveToJSON)           \
  X(MXSymbolFree)                 \
  X(MXSymbolListArguments)        \
  X(MXSymbolListAuxiliaryStates)  \
  X(MXSymbolGetNumOutputs)        \
  X(MXSymbolGetName)              \
  X(MXSymbolGetInternals)         \
  X(MXSymbolGetOutput)            \
  X(MXSymbolCreateGroup)          \
  X(MXSymbolInferShapePartialEx)  \
  X(MXSymbolCreateAtomicSymbol)   \
  X(MXSymbolCompose)              \
  X(NNGetOpHandle)                \
  X(NNSymbolListInputNames)       \
  X(MXNDArrayCreateEx)            \
  X(MXNDArrayFree)                \
  X(MXNDArraySyncCopyFromCPU)     \
  X(MXNDArraySyncCopyFromNDArray) \
  X(MXNDArraySyncCopyToCPU)       \
  X(MXNDArrayGetShapeEx)          \
  X(MXNDArrayGetDType)            \
  X(MXNDArrayGetStorageType)      \
  X(MXImperativeInvokeEx)         \
  X(MXNDArrayWaitToRead)          \
  X(MXNDArrayWaitAll)             \
  X(MXEnginePushSync)             \
  X(MXCreateCachedOpEx)           \
  X(MXFreeCachedOp)               \
  X(MXInvokeCachedOpEx)           \
  X(MXExecutorSimpleBindEx)       \
  X(MXExecutorForward)            \
  X(MXExecutorOutputs)            \
  X(MXExecutorFree)               \
  X(MXPredCreateEx)               \
  X(MXPredSetInput)               \
  X(MXPredForward)                \
  X(MXPredGetOutputShape)         \
  X(MXPredGetOutputType)          \
  X(MXPredGetOutput)              \
  X(MXPredFree)                   \
  X(MXLoadLib)                    \
  X(MXOptimizeForBackend)

// The device that everything runs on.
constexpr int kCpu = 1;

struct Api {
#define VQVAE_DECLARE(name) decltype(&::name) name = nullptr;  // NOLINT(bugprone-macro-parentheses)
  VQVAE_MXNET_FUNCTIONS(VQVAE_DECLARE)
#undef VQVAE_DECLARE
};

// The library: $MXNET_LIBRARY_PATH (a file or its directory), else what the dynamic linker finds, which also searches
// the RUNPATH of libvqvae: its own directory, or the wheel's where it was built. Unless OMP_NUM_THREADS is set, it is
// set to the number of processors this process may run on. The first call loads it; it may come from any thread. Throws
// RuntimeFailure.
const Api& api();

// Several threads call MXNet at once, but MXNet reads environment variables whenever it likes, in threads of its own,
// and one of them is the only way to bind a graph without fusion. So whoever changes the environment has it alone.

// While it lives, this library leaves the environment as it is. Nests.
class SteadyEnvironment {
 public:
  SteadyEnvironment();
  SteadyEnvironment(const SteadyEnvironment&) = delete;
  SteadyEnvironment& operator=(const SteadyEnvironment&) = delete;
  ~SteadyEnvironment();
};

// Lives wherever MXNet is called, until what it was given to compute is computed. Loads the library. Nests. Must not
// live while a caller's function is called, which may wait for another thread.
class InUse {
 public:
  InUse() : InUse(api()) {}  // Loading changes the environment, so it comes first.

 private:
  explicit InUse(const Api& /*loaded*/) {}
  SteadyEnvironment environment_;
};

// While it lives, MXNet has NumPy's rules for shapes in this thread, or its own.
class ShapeRules {
 public:
  explicit ShapeRules(bool numpy);
  ShapeRules(const ShapeRules&) = delete;
  ShapeRules& operator=(const ShapeRules&) = delete;
  ~ShapeRules();

 private:
  const Api& api_;
  int before_ = 0;
};

// While it lives, no other thread of this library calls MXNet, which computes nothing of theirs. Must not live within
// InUse.
class Alone {
 public:
  Alone();
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  ~Alone();
};

// Lives while an executor is bound: by one thread at a time, because all of them share what fuses graphs. Without
// `fuse` nothing is fused, unless the user has chosen what is. Must not live within InUse.
class Binding {
 public:
  explicit Binding(bool fuse);
  Binding(const Binding&) = delete;
  Binding& operator=(const Binding&) = delete;
  ~Binding();

 private:
  const Api& api_;
  Alone alone_;
  bool set_;
};

// Called before MXNet reads attributes: it takes an infinity for an overflow if errno still says so of what this thread
// did before.
void forget_range_errors();

// The reason that the last failed call gave.
std::string last_error();

// "1.9.1"
std::string version();

// Turn a return code into an exception. `what` is the file or thing that is being worked on.
void check(int code, const std::string& what);

// Whether MXNet has been taken down, at the end of the program: what still has handles then outlived main.
bool is_gone();

template <auto Free>
struct Deleter {
  void operator()(void* handle) const {
    if (is_gone()) return;
    const InUse use;
    (api().*Free)(handle);
  }
};
using Symbol = std::unique_ptr<void, Deleter<&Api::MXSymbolFree>>;
using Array = std::unique_ptr<void, Deleter<&Api::MXNDArrayFree>>;
using CachedOp = std::unique_ptr<void, Deleter<&Api::MXFreeCachedOp>>;
using Executor = std::unique_ptr<void, Deleter<&Api::MXExecutorFree>>;
using Predictor = std::unique_ptr<void, Deleter<&Api::MXPredFree>>;

Array to_array(const Tensor& tensor);
Tensor to_tensor(NDArrayHandle array, const std::string& what);

// Have MXNet load this project's operators (kernels/), unless it has them: libvqvae_kernels.so beside libvqvae, or
// $VQVAE_KERNELS. Returns the file. Must not be called within InUse. Throws RuntimeFailure.
const std::string& load_kernels();

// The same graph with those operators in it, which must be loaded. Throws RuntimeFailure.
Symbol fuse(SymbolHandle symbol, const std::string& what);

// Take the arrays that a run gave, and wait until they are computed.
std::vector<Array> take(NDArrayHandle* handles, std::size_t count, const std::string& what);

// Hand copies of arrays to a function of number and tensor, one after the other.
template <typename Sink>
void hand_over(std::vector<Array> arrays, const std::string& what, const Sink& sink) {
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    sink(i, to_tensor(arrays[i].get(), what));
    arrays[i].reset();
  }
}

// Shapes by name as the API takes them: all extents in one row, and where each shape begins in it. The names stay the
// caller's.
template <typename Extent>
struct NamedShapes {
  std::vector<const char*> names;
  std::vector<std::uint32_t> begins = {0};
  std::vector<Extent> extents;

  void add(const std::string& name, const Shape& shape) {
    names.push_back(name.c_str());
    for (const std::int64_t extent : shape) extents.push_back(static_cast<Extent>(extent));
    begins.push_back(static_cast<std::uint32_t>(extents.size()));
  }
  std::uint32_t size() const { return static_cast<std::uint32_t>(names.size()); }
};

// The names that one of the API's listing functions gives for a symbol.
template <typename Function>
std::vector<std::string> names(Function list, SymbolHandle symbol, const std::string& what) {
  std::uint32_t size = 0;
  const char** strings = nullptr;
  check(list(symbol, &size, &strings), what);
  return {strings, strings + size};
}

}  // namespace vqvae::mxnet

#endif  // VQVAE_SRC_MXNET_HPP_
