// Several threads, each with a predictor of its own. A program of its own: MXNet is loaded by the first test, and the
// functions of the environment are watched.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"
#include "vqvae/image.hpp"
#include "vqvae/predictor.hpp"
#include "vqvae/vqvae.h"

namespace vqvae::mxnet {
std::string version();  // Of src/mxnet.hpp: it loads the library, and runs nothing.
}

namespace {

constexpr vqvae::Engine kEngines[] = {vqvae::Engine::kCachedOp, vqvae::Engine::kExecutor, vqvae::Engine::kPredict};

// What the functions below saw.
std::atomic<bool> watched{false};
std::atomic<bool> changing{false};
std::atomic<int> changes{0};
std::atomic<int> reads_meanwhile{0};
std::atomic<int> tables_changed{0};
std::atomic<int> fusing{0};
std::atomic<int> fused_at_once{0};

// Change the environment so slowly that others would be seen to read it, if they did.
template <typename Function>
int change(Function function) {
  if (!watched) return function();
  ++changes;
  changing = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const int result = function();
  changing = false;
  return result;
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// MXNet is not in reach of RTLD_NEXT, since the library opens it for itself alone.
template <typename Function>
Function* of_mxnet(const char* name) {
  return reinterpret_cast<Function*>(dlsym(dlopen("libmxnet.so", RTLD_LAZY | RTLD_NOLOAD), name));
}

// Freed after MXNet is taken down; then this program would crash or hang at its end.
std::vector<vqvae::Predictor> outlive_main;

vqvae::Tensor digits(int count) {
  vqvae::Tensor images(vqvae::DType::kUint8, {0, 28, 28, 1});
  for (int i = 0; i < count; ++i) {
    const std::string path = std::string(VQVAE_PRETRAINED "/digits/0") + std::to_string(i % 10) + ".png";
    vqvae::append(&images, vqvae::decode_image(vqvae::read_file(path, 1 << 20), 1, path));
  }
  return images;
}

vqvae::Predictor open(vqvae::Engine engine) {
  return vqvae::Predictor(vqvae::read_bundle(VQVAE_PRETRAINED, true), engine);
}

// A residual sum right behind a convolution, which MXNet's executors compute wrongly when they fuse.
vqvae::Export misfused() {
  const std::string json = R"({"nodes": [
    {"op": "null", "name": "data", "inputs": []}, {"op": "null", "name": "weight", "inputs": []},
    {"op": "Convolution", "name": "stem", "inputs": [[0, 0, 0], [1, 0, 0]],
     "attrs": {"kernel": "[3, 3]", "pad": "[1, 1]", "num_filter": "4", "no_bias": "True"}},
    {"op": "Activation", "name": "relu", "inputs": [[2, 0, 0]], "attrs": {"act_type": "relu"}},
    {"op": "elemwise_add", "name": "sum", "inputs": [[2, 0, 0], [3, 0, 0]]}],
    "arg_nodes": [0, 1], "heads": [[4, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}})";
  vqvae::Export network;
  network.graph = vqvae::parse_graph(to_bytes(json), "residual");
  vqvae::Tensor weight(vqvae::DType::kFloat32, {4, 1, 3, 3});
  for (int i = 0; i < 36; ++i) weight.as<float>()[i] = static_cast<float>(i % 7 - 3) / 8;
  network.parameters["arg:weight"] = weight;
  return network;
}

vqvae::Bytes run_misfused(vqvae::Fusion fusion) {
  vqvae::Network network(misfused(), {"data"}, vqvae::Engine::kExecutor, fusion);
  vqvae::Tensor data(vqvae::DType::kFloat32, {2, 1, 8, 8});
  for (int i = 0; i < 128; ++i) data.as<float>()[i] = static_cast<float>(i % 11 - 5);
  return network.run({{"data", data}}).at(0).data;
}

// Call the function with 0, 1, 2 ... in as many threads, at once.
void in_threads(int count, const std::function<void(int)>& function) {
  std::atomic<int> waiting{count};
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      for (--waiting; waiting > 0;) std::this_thread::yield();
      function(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

// These stand before the C library's own for everything in this process, libmxnet included.
extern "C" {
char* getenv(const char* name) noexcept {
  if (changing) ++reads_meanwhile;
  const std::size_t size = std::strlen(name);
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    if (std::strncmp(*entry, name, size) == 0 && (*entry)[size] == '=') return *entry + size + 1;
  }
  return nullptr;
}
int setenv(const char* name, const char* value, int replace) noexcept {
  static auto* real = next<int(const char*, const char*, int)>("setenv");
  return change([&] { return real(name, value, replace); });
}
int unsetenv(const char* name) noexcept {
  static auto* real = next<int(const char*)>("unsetenv");
  return change([&] { return real(name); });
}

#define UPDATE_TABLE "_ZN4nnvm2Op13UpdateAttrMapERKSsSt8functionIFvPN4dmlc3anyEEE"

// nnvm::Op::UpdateAttrMap(name, function): makes or changes a table of operator attributes. Others read them meanwhile.
void update_table(const void* name, void* function) asm(UPDATE_TABLE);
void update_table(const void* name, void* function) {
  static auto* real = of_mxnet<void(const void*, void*)>(UPDATE_TABLE);
  ++tables_changed;
  real(name, function);
}

#define PRE_PARTITION                                                                                     \
  "_ZN5mxnet2op22CustomSubgraphProperty12PrePartitionERKN4nnvm5GraphERKSt13unordered_mapISsSsSt4hashISsE" \
  "St8equal_toISsESaISt4pairIKSsSsEEE"

// mxnet::op::CustomSubgraphProperty::PrePartition(graph, options): one object for all graphs. Takes so long that others
// would be seen in it, too.
void pre_partition(void* property, const void* graph, const void* options) asm(PRE_PARTITION);
void pre_partition(void* property, const void* graph, const void* options) {
  static auto* real = of_mxnet<void(void*, const void*, const void*)>(PRE_PARTITION);
  const int others = fusing++;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  real(property, graph, options);
  fused_at_once = std::max(fused_at_once.load(), others + 1);
  --fusing;
}
}

TEST_CASE("predictors of several threads give what each would give alone; MXNet is loaded by one of them") {
  constexpr int kThreads = 6;
  constexpr int kBatches[] = {1, 7, 3, 16};
  std::vector<vqvae::Bytes> codes(kThreads);
  std::vector<vqvae::Bytes> results(kThreads);
  const auto run = [&](int number) {
    vqvae::Predictor predictor = open(kEngines[number % 3]);
    vqvae::Bytes result;
    for (int round = 0; round < 4; ++round) {
      const vqvae::Tensor images = digits(kBatches[(number + round) % 4]);
      codes.at(number) = predictor.encode(images).data;
      const vqvae::Bytes pixels = predictor.reconstruct(images).data;
      result.insert(result.end(), pixels.begin(), pixels.end());
    }
    return result;
  };
  in_threads(kThreads, [&](int number) { results.at(number) = run(number); });
  const std::vector<vqvae::Bytes> together = codes;
  for (int number = 0; number < kThreads; ++number) {
    CHECK(results[number] == run(number));
    CHECK(together[number] == codes[number]);
  }
}

// A process of its own runs it, since only what comes first could find a table missing.
TEST_CASE("once MXNet is loaded, its tables of operators do not change" * doctest::skip()) {
  REQUIRE(vqvae::mxnet::version() == "1.9.1");
  CHECK(tables_changed.exchange(0) > 0);
  for (const vqvae::Engine engine : kEngines) open(engine).reconstruct(digits(1));
  CHECK(tables_changed.load() == 0);
}

#ifdef VQVAE_HAS_KERNELS
TEST_CASE("threads fuse graphs, one at a time, while others run networks; one of them loads the operators") {
  constexpr int kThreads = 4;
  const vqvae::Tensor images = digits(3);
  std::vector<vqvae::Bytes> results(kThreads);
  const auto run = [&](int number) {
    return open(number < 2 ? vqvae::Engine::kFused : kEngines[number % 3]).encode(images).data;
  };
  in_threads(kThreads, [&](int number) {
    for (int round = 0; round < 4; ++round) results.at(number) = run(number);
  });
  for (int number = 0; number < kThreads; ++number) CHECK(results[number] == run(number));
  CHECK(fused_at_once.load() == 1);
}
#endif

TEST_CASE("a predictor is made in one thread, used in others, and freed in one that never used it") {
  const vqvae::Tensor images = digits(3);
  for (const vqvae::Engine engine : kEngines) {
    const vqvae::Bytes wanted = open(engine).reconstruct(images).data;
    std::unique_ptr<vqvae::Predictor> predictor;
    std::thread([&] { predictor = std::make_unique<vqvae::Predictor>(open(engine)); }).join();
    for (int i = 0; i < 2; ++i) {
      std::thread([&] {
        vqvae::Predictor moved = std::move(*predictor);
        CHECK(moved.reconstruct(images).data == wanted);
        *predictor = std::move(moved);
      }).join();
    }
    std::thread([&] { predictor.reset(); }).join();
  }
}

TEST_CASE("while one thread binds without fusion the others neither read the environment nor bind without it") {
  const vqvae::Bytes right = run_misfused(vqvae::Fusion::kSafe);
  const vqvae::Bytes wrong = run_misfused(vqvae::Fusion::kMXNet);
  CHECK(right != wrong);
  const vqvae::Tensor images = digits(4);
  const vqvae::Bytes wanted = open(vqvae::Engine::kCachedOp).reconstruct(images).data;
  constexpr int kThreads = 5;
  std::atomic<int> wrongs{0};
  watched = true;
  in_threads(kThreads, [&](int number) {
    for (int round = 0; round < 6; ++round) {
      if (number < 2) {
        wrongs += run_misfused(vqvae::Fusion::kSafe) != right;
      } else if (number == 2) {
        wrongs += run_misfused(vqvae::Fusion::kMXNet) != wrong;
      } else {
        wrongs += vqvae::fusion_is_chosen();
        wrongs += open(kEngines[(number + round) % 3]).reconstruct(images).data != wanted;
      }
    }
  });
  watched = false;
  CHECK(wrongs.load() == 0);
  CHECK(changes.load() == 24);  // Two threads, six times, on and off.
  CHECK(reads_meanwhile.load() == 0);
}

TEST_CASE("predictors may outlive main") {
  for (const vqvae::Engine engine : kEngines) outlive_main.push_back(open(engine));
  for (vqvae::Predictor& predictor : outlive_main) predictor.reconstruct(digits(1));
}

TEST_CASE("a function that is handed an output may run another network") {
  vqvae::Network network(misfused(), {"data"}, vqvae::Engine::kExecutor);
  const vqvae::Inputs inputs = {{"data", vqvae::Tensor(vqvae::DType::kFloat32, {1, 1, 8, 8})}};
  int outputs = 0;
  network.taps(inputs, [&](const vqvae::Tap&) {
    CHECK(run_misfused(vqvae::Fusion::kSafe) != run_misfused(vqvae::Fusion::kMXNet));
    ++outputs;
  });
  CHECK(outputs == 3);
}

TEST_CASE("callers of the C API share a predictor, and each thread has an error of its own") {
  vqvae_predictor* predictor = nullptr;
  REQUIRE(vqvae_open(VQVAE_PRETRAINED, nullptr, &predictor) == VQVAE_DONE);
  const vqvae::Tensor images = digits(5);
  vqvae::Bytes wanted = images.data;
  REQUIRE(vqvae_reconstruct(predictor, wanted.data(), wanted.size(), 5, 28, 28, wanted.data(), wanted.size()) == 0);
  std::atomic<int> wrongs{0};
  in_threads(4, [&](int number) {
    wrongs += *vqvae_last_error() != '\0';
    for (const int count : {number + 1, 1, 5 - number}) {
      vqvae::Bytes buffer = vqvae::slice(images, 0, count).data;
      const std::size_t size = buffer.size();
      wrongs += vqvae_reconstruct(predictor, buffer.data(), size, count, 28, 28, buffer.data(), size);
      wrongs += !std::equal(buffer.begin(), buffer.end(), wanted.begin());
    }
    wrongs += vqvae_code_shape(predictor, -number, 1, nullptr, nullptr) != VQVAE_USAGE;
    wrongs += vqvae_last_error() != "height: is " + std::to_string(-number) + ", not 1 to 2^31 - 1";
  });
  CHECK(wrongs.load() == 0);
  vqvae_close(predictor);
}

// What must not be done: ThreadSanitizer is to say so, whatever it is told to overlook (tests/tsan.txt). The second
// thread runs after the first, but does not know it.
TEST_CASE("two threads use one predictor" * doctest::skip()) {
  vqvae::Predictor predictor = open(vqvae::Engine::kCachedOp);
  std::atomic<bool> done{false};
  std::thread first([&] {
    predictor.encode(digits(1));
    done.store(true, std::memory_order_relaxed);
  });
  std::thread second([&] {
    const vqvae::Tensor images = digits(2);
    while (!done.load(std::memory_order_relaxed)) std::this_thread::yield();
    predictor.encode(images);
  });
  first.join();
  second.join();
}
