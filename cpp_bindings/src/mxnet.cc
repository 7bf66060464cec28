#include "mxnet.hpp"

#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <sstream>
#include <stdexcept>
#include <string>

#include "environment.hpp"
#include "vqvae/error.hpp"
#include "vqvae/fusion.hpp"
#include "vqvae/network.hpp"
#include "vqvae/threads.hpp"

namespace vqvae::mxnet {
namespace {

constexpr const char* kLibrary = "libmxnet.so";
constexpr const char* kPathVariable = "MXNET_LIBRARY_PATH";
constexpr const char* kKernels = "libvqvae_kernels.so";
constexpr const char* kKernelsVariable = "VQVAE_KERNELS";
constexpr const char* kFusedOperator = "_vqvae_fused";
constexpr const char* kBackend = "vqvae";

// What to open. A name without a directory is searched for by the dynamic linker.
std::string library_path() {
  const char* given = std::getenv(kPathVariable);
  if (given == nullptr || *given == '\0') return kLibrary;
  const std::filesystem::path path(given);
  std::error_code error;
  return (std::filesystem::is_directory(path, error) ? path / kLibrary : path).string();
}

// A mutex for many threads that use MXNet, or one that changes what it reads. Who waits to be alone comes before who
// came later.
class Gate {
 public:
  void lock_shared() {
    const std::scoped_lock turn(turn_);
    users_.lock_shared();
  }
  void unlock_shared() { users_.unlock_shared(); }
  void lock() {
    const std::scoped_lock turn(turn_);
    users_.lock();
  }
  void unlock() { users_.unlock(); }

 private:
  std::mutex turn_;
  std::shared_mutex users_;
};

Gate gate;                   // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
thread_local int inside;     // How often this thread has entered.
std::atomic<bool> gone;      // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
const char* loaded_threads;  // OMP_NUM_THREADS as libmxnet found it; null while it is not loaded. By the gate.

constexpr int kKeepWhatIsSet = 0;
constexpr int kReplace = 1;

void use_all_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    setenv(kThreadsVariable, std::to_string(CPU_COUNT(&set)).c_str(), kKeepWhatIsSet);
  }
}

template <typename Function>
void resolve(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr)
    throw RuntimeFailure(kLibrary, std::string("has no function ") + name + "; use MXNet 1.9.1");
}

// The line of MXNet's message that says what is wrong: the last one that is no part of a stack trace. Throws
// std::bad_alloc where that is a lack of memory.
std::string reason(const std::string& message) {
  std::istringstream lines(message);
  std::string line;
  std::string last = "unknown error";
  while (std::getline(lines, line)) {
    if (line.rfind("Stack trace:", 0) == 0) break;
    const std::size_t start = line.find_first_not_of(' ');
    if (start != std::string::npos && line.compare(start, 6, "File \"") != 0) last = line.substr(start);
  }
  for (const std::string ending : {"std: :bad_alloc", "std::bad_alloc", "CPU Memory", "Cannot allocate memory"}) {
    if (last.size() >= ending.size() && last.substr(last.size() - ending.size()) == ending) throw std::bad_alloc();
  }
  return last;
}

// While it lives, the handlers of crashes that a library sets are those that were set before: libmxnet's write to
// standard error and end the program with 255, as if it had ended itself.
class KeptHandlers {
 public:
  KeptHandlers() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals.at(i), nullptr, &before_.at(i));
  }
  KeptHandlers(const KeptHandlers&) = delete;
  KeptHandlers& operator=(const KeptHandlers&) = delete;
  ~KeptHandlers() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals.at(i), &before_.at(i), nullptr);
  }

 private:
  static constexpr std::array<int, 5> kSignals = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGILL};
  std::array<struct sigaction, kSignals.size()> before_{};
};

// Open the library; it reads its variables.
void* open() {
  const std::scoped_lock alone(gate);
  const KeptHandlers handlers;
  check_environment();
  use_all_processors();
  require_room();
  setenv("MXNET_SUBGRAPH_VERBOSE", "0", kKeepWhatIsSet);  // The executor would tell standard error that it fuses.
  void* library = dlopen(library_path().c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    throw RuntimeFailure(kLibrary, std::string("could not be loaded (") + dlerror() + "); set " + kPathVariable +
                                       " to the file of MXNet 1.9.1");
  }
  const char* threads = std::getenv(kThreadsVariable);
  static const std::string kept = threads == nullptr ? "" : threads;
  loaded_threads = kept.c_str();
  return library;
}

// Run one node once. Some tables of operators are made when they are first asked for, and another thread may find them
// half made: so this is done before there is another.
void run_once(const Api& api) {
  const auto done = [&](int code) {
    if (code != 0) throw RuntimeFailure(kLibrary, reason(api.MXGetLastError()));
  };
  constexpr const char* kGraph = R"({"nodes": [{"op": "null", "name": "data", "inputs": []},
    {"op": "abs", "name": "abs", "inputs": [[0, 0, 0]]}], "arg_nodes": [0], "heads": [[1, 0, 0]],
    "attrs": {"mxnet_version": ["int", 10901]}})";
  constexpr std::uint32_t kDimensions = 1;
  constexpr std::uint32_t kShape[] = {1};
  constexpr int kAllocateNow = 0;
  constexpr float kValue = 1;
  const char* keys[] = {"static_alloc", "static_shape"};
  const char* values[] = {"True", "True"};
  SymbolHandle symbol = nullptr;
  NDArrayHandle input = nullptr;
  CachedOpHandle op = nullptr;
  done(api.MXSymbolCreateFromJSON(kGraph, &symbol));
  done(api.MXNDArrayCreateEx(kShape, kDimensions, kCpu, 0, kAllocateNow, static_cast<int>(DType::kFloat32), &input));
  done(api.MXNDArraySyncCopyFromCPU(input, &kValue, 1));
  done(api.MXCreateCachedOpEx(symbol, 2, keys, values, &op));
  int count = 0;
  NDArrayHandle* outputs = nullptr;
  const int* storage_types = nullptr;
  done(api.MXInvokeCachedOpEx(op, 1, &input, &count, &outputs, &storage_types));
  done(api.MXNDArrayWaitToRead(outputs[0]));
  done(api.MXNDArrayFree(outputs[0]));
  done(api.MXFreeCachedOp(op));
  done(api.MXNDArrayFree(input));
  done(api.MXSymbolFree(symbol));
}

// MXNet's threads free what belonged to a predictor some time after it was freed here. This waits for them at exit,
// before libmxnet's destructors take down what they use. What an operation held is dropped only after it counts as
// done, and may free more: the next operation of the same thread shows that it has been dropped. A thread of MXNet's
// own that crashed and calls exit must not wait for itself.
void finish_at_exit() {
  gone = true;
  const bool is_main_thread = gettid() == getpid();
  if (!is_main_thread || inside != 0) return;
  constexpr int kNested = 4;  // Graphs hold operators, and these arrays; one more to be sure.
  struct {
    std::int32_t type = kCpu;
    std::int32_t number = 0;
  } device;  // mxnet::Context
  for (int i = 0; i < kNested; ++i) {
    api().MXNDArrayWaitAll();
    api().MXEnginePushSync([](void*, void*) {}, nullptr, nullptr, &device, nullptr, 0, nullptr, 0, nullptr, 0, "end");
  }
  api().MXNDArrayWaitAll();
}

Api load() {
  void* library = open();
  Api api;
#define VQVAE_RESOLVE(name) resolve(library, #name, &api.name);
  VQVAE_MXNET_FUNCTIONS(VQVAE_RESOLVE)
#undef VQVAE_RESOLVE
  // MXNet's oldest operators (SliceChannel, InstanceNorm, ...) are not registered whole until they are listed.
  std::uint32_t size = 0;
  const char** operators = nullptr;
  if (api.MXListAllOpNames(&size, &operators) != 0) throw RuntimeFailure(kLibrary, reason(api.MXGetLastError()));
  run_once(api);
  // What is registered now is called before the destructors of libmxnet, and of what it has made until now.
  if (std::atexit(finish_at_exit) != 0) throw RuntimeFailure(kLibrary, "could not be loaded (atexit)");
  return api;
}

}  // namespace

const Api& api() {
  static const Api loaded = load();
  return loaded;
}

bool is_gone() { return gone; }

SteadyEnvironment::SteadyEnvironment() {
  if (inside == 0) gate.lock_shared();
  ++inside;
}
SteadyEnvironment::~SteadyEnvironment() {
  if (--inside == 0) gate.unlock_shared();
}

ShapeRules::ShapeRules(bool numpy) : api_(api()) { check(api_.MXSetIsNumpyShape(numpy ? 1 : 0, &before_), kLibrary); }
ShapeRules::~ShapeRules() {
  int ignored = 0;
  api_.MXSetIsNumpyShape(before_, &ignored);
}

Alone::Alone() {
  if (inside != 0) throw std::logic_error("MXNet is wanted alone while it is in use");
  gate.lock();
  ++inside;
}
Alone::~Alone() {
  --inside;
  gate.unlock();
}

Binding::Binding(bool fuse) : api_(api()) {
  set_ = !fuse && !fusion_is_chosen();
  if (!set_) return;
  api_.MXNDArrayWaitAll();  // Arrays that were freed may still be on their way.
  // NONE would do, too, but MXNet writes a line about it to standard error every time. This back end of its own fuses
  // what it is told to, and is told nothing.
  setenv(kFusionVariable, "default", kReplace);
}
Binding::~Binding() {
  if (!set_) return;
  api_.MXNDArrayWaitAll();
  unsetenv(kFusionVariable);
}

void forget_range_errors() { errno = 0; }

std::string last_error() { return reason(api().MXGetLastError()); }

std::string version() {
  const InUse use;
  int number = 0;
  check(api().MXGetVersion(&number), kLibrary);
  return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." + std::to_string(number % 100);
}

void check(int code, const std::string& what) {
  if (code != 0) throw RuntimeFailure(what, last_error());
}

Array to_array(const Tensor& tensor) {
  const InUse use;
  const std::vector<std::uint32_t> shape(tensor.shape.begin(), tensor.shape.end());
  NDArrayHandle handle = nullptr;
  constexpr int kAllocateNow = 0;
  check(api().MXNDArrayCreateEx(shape.data(), static_cast<std::uint32_t>(shape.size()), kCpu, 0, kAllocateNow,
                                static_cast<int>(tensor.dtype), &handle),
        "array");
  Array array(handle);
  check(api().MXNDArraySyncCopyFromCPU(handle, tensor.data.data(), element_count(tensor.shape)), "array");
  return array;
}

namespace {

// The same values with none left out, or nothing if none is.
Array to_dense(NDArrayHandle array, const std::string& what) {
  constexpr int kDense = 0;
  int storage = kDense;
  check(api().MXNDArrayGetStorageType(array, &storage), what);
  if (storage == kDense) return {};
  OpHandle op = nullptr;
  check(api().NNGetOpHandle("cast_storage", &op), what);
  const char* key = "stype";
  const char* value = "default";
  int count = 0;
  NDArrayHandle* outputs = nullptr;
  const int* storages = nullptr;
  check(api().MXImperativeInvokeEx(op, 1, &array, &count, &outputs, 1, &key, &value, &storages), what);
  return std::move(take(outputs, static_cast<std::uint32_t>(count), what).at(0));
}

}  // namespace

Tensor to_tensor(NDArrayHandle array, const std::string& what) {
  const InUse use;
  const Array dense = to_dense(array, what);
  if (dense) array = dense.get();
  int dimensions = 0;
  const int* extents = nullptr;
  int dtype = 0;
  check(api().MXNDArrayGetShapeEx(array, &dimensions, &extents), what);
  check(api().MXNDArrayGetDType(array, &dtype), what);
  if (!is_dtype(dtype) || dimensions < 0) throw RuntimeFailure(what, "gave an array of unknown type or shape");
  Tensor tensor(static_cast<DType>(dtype), Shape(extents, extents + dimensions));
  check(api().MXNDArraySyncCopyToCPU(array, tensor.data.data(), element_count(tensor.shape)), what);
  return tensor;
}

namespace {

// Have MXNet load the library of operators, unless it has it: in one process it is loaded once. Operators are
// registered in tables that others read.
std::string register_kernels() {
  std::string path;
  const char* given = std::getenv(kKernelsVariable);
  if (given != nullptr && *given != '\0') {
    path = given;
  } else {
    Dl_info self = {};
    if (dladdr(reinterpret_cast<void*>(&is_gone), &self) != 0) {
      path = (std::filesystem::path(self.dli_fname).parent_path() / kKernels).string();
    }
  }
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    throw RuntimeFailure(
        kKernels, "is missing (" + path + "); build it with the rest, or set " + kKernelsVariable + " to the file");
  }
  path = std::filesystem::absolute(path).string();
  const Api& api = mxnet::api();
  const Alone alone;
  check(api.MXNDArrayWaitAll(), kKernels);  // Arrays that were freed may still be on their way.
  OpHandle known = nullptr;
  constexpr unsigned kQuietly = 0;
  if (api.NNGetOpHandle(kFusedOperator, &known) != 0) check(api.MXLoadLib(path.c_str(), kQuietly), path);
  return path;
}

}  // namespace

const std::string& load_kernels() {
  if (inside != 0) throw std::logic_error("operators are loaded while MXNet is in use");  // Two threads would lock up.
  static const std::string path = register_kernels();
  return path;
}

Symbol fuse(SymbolHandle symbol, const std::string& what) {
  const InUse use;
  // What takes parts of graphs is one object in MXNet, which has the names and options of the graph that came last.
  static std::mutex one_at_a_time;
  const std::scoped_lock turn(one_at_a_time);
  SymbolHandle fused = nullptr;
  int new_arguments = 0;
  int new_auxiliaries = 0;
  NDArrayHandle* arrays = nullptr;
  char** names = nullptr;
  constexpr bool kSkipInference = true;
  check(api().MXOptimizeForBackend(symbol, kBackend, kCpu, &fused, 0, nullptr, 0, nullptr, 0, nullptr, nullptr, 0,
                                   nullptr, nullptr, nullptr, 0, nullptr, nullptr, 0, nullptr, nullptr, kSkipInference,
                                   &new_arguments, &arrays, &names, &new_auxiliaries, &arrays, &names),
        what);
  return Symbol(fused);
}

std::vector<Array> take(NDArrayHandle* handles, std::size_t count, const std::string& what) {
  std::vector<Array> arrays(handles, handles + count);
  for (const Array& array : arrays) check(api().MXNDArrayWaitToRead(array.get()), what);
  return arrays;
}

}  // namespace vqvae::mxnet

namespace vqvae {

std::string why_not_fused() {
  const std::string& path = mxnet::load_kernels();
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  auto* why_not =
      library == nullptr ? nullptr : reinterpret_cast<const char* (*)()>(dlsym(library, "vqvae_kernels_why_not"));
  if (library != nullptr) dlclose(library);  // MXNet keeps it open.
  return why_not == nullptr ? path + " is of another version" : why_not();
}

void use_threads(int count) {
  if (count < 1) throw UsageError("threads", "are " + std::to_string(count) + "; give at least 1");
  const std::string wanted = std::to_string(count);
  const std::scoped_lock alone(mxnet::gate);
  if (mxnet::loaded_threads == nullptr) {
    setenv(kThreadsVariable, wanted.c_str(), mxnet::kReplace);
  } else if (wanted != mxnet::loaded_threads) {
    throw UsageError("threads", std::string("are ") + mxnet::loaded_threads +
                                    " for the whole process since MXNet was loaded; they cannot be " + wanted);
  }
}

}  // namespace vqvae
