#include "environment.hpp"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <regex>
#include <string>

#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::int64_t kMost = 2147483647;
constexpr std::size_t kShown = 40;      // characters of a value
constexpr std::size_t kLongest = 1000;  // A longer one is none, and the library of patterns would overflow the stack.
constexpr int kReplace = 1;

// What a variable's value must be: a pattern, whatever the case of its letters, and the bounds of numbers in it.
struct Rule {
  const char* pattern;
  const char* wanted;
  std::int64_t low = 0;
  std::int64_t high = kMost;
};

constexpr Rule kCount = {" *[0-9]{1,10} *", "a whole number from 1 to 1024", 1, 1024};
constexpr Rule kCounts = {" *[0-9]{1,10} *(, *[0-9]{1,10} *)*",
                          "whole numbers from 1 to 1024, with commas between them", 1, 1024};
constexpr Rule kPositive = {" *[0-9]{1,10} *", "a whole number from 1 to 2147483647", 1};
constexpr Rule kWhole = {" *[0-9]{1,10} *", "a whole number from 0 to 2147483647"};
// MXNet makes room for so many.
constexpr Rule kNodes = {" *[0-9]{1,10} *", "a whole number from 0 to 1000000", 0, 1000000};
constexpr Rule kWholeOrNone = {"-1|[0-9]{1,10}", "a whole number from -1 to 2147483647"};
constexpr Rule kNumber = {R"([0-9]{1,9}(\.[0-9]{1,9})?)", "a number such as 0.5"};
constexpr Rule kFlag = {"0|1|true|false", "0, 1, true or false"};
constexpr Rule kSwitch = {"0|1", "0 or 1"};
constexpr Rule kTruth = {"true|false", "true or false"};

struct Row {
  const char* name;
  Rule rule;
};

// The Python side (vqvae_gluon/environment.py) has the same table.
constexpr Row kRows[] = {
    {"OMP_NUM_THREADS", kCounts},
    {"OMP_THREAD_LIMIT", kPositive},
    {"OMP_MAX_ACTIVE_LEVELS", kWhole},
    {"OMP_MAX_TASK_PRIORITY", kWhole},
    {"OMP_DEFAULT_DEVICE", kWhole},
    {"OMP_DYNAMIC", kTruth},
    {"OMP_NESTED", kTruth},
    {"OMP_CANCELLATION", kTruth},
    {"OMP_DISPLAY_ENV", {"true|false|verbose", "true, false or verbose"}},
    {"OMP_WAIT_POLICY", {"active|passive", "active or passive"}},
    {"OMP_PROC_BIND",
     {"true|false|(master|primary|close|spread)(,(master|primary|close|spread))*",
      "true, false, or of master, close and spread some with commas between them"}},
    {"OMP_SCHEDULE",
     {"((non)?monotonic:)?(static|dynamic|guided|auto)(,[0-9]{1,9})?", "static, dynamic, guided or auto"}},
    {"OMP_STACKSIZE", {" *([0-9]{1,7} *[bk]?|[0-9]{1,4} *m|[1-4] *g) *", "a size up to 4G, such as 4M"}},
    {"MXNET_ENGINE_TYPE",
     {"NaiveEngine|ThreadedEngine|ThreadedEnginePerDevice", "NaiveEngine, ThreadedEngine or ThreadedEnginePerDevice"}},
    {"MXNET_TUNING_WEIGHT_SCALE", kNumber},
    {"MXNET_CPU_WORKER_NTHREADS", kCount},
    {"MXNET_CPU_PRIORITY_NTHREADS", kCount},
    {"MXNET_MP_WORKER_NTHREADS", kCount},
    {"MXNET_GPU_WORKER_NTHREADS", kCount},
    {"MXNET_GPU_COPY_NTHREADS", kCount},
    {"MXNET_KVSTORE_REDUCTION_NTHREADS", kCount},
    {"MXNET_OMP_MAX_THREADS", kCount},
    {"MXNET_CPU_TEMP_COPY", kCount},
    {"MXNET_GPU_TEMP_COPY", kCount},
    {"MXNET_CPU_PARALLEL_RAND_COPY", kCount},
    {"MXNET_GPU_PARALLEL_RAND_COPY", kCount},
    {"MXNET_USE_NUM_CORES_OPERATOR_TUNING", kCount},
    {"MXNET_MKLDNN_CACHE_NUM", kWholeOrNone},
    {"MXNET_CPU_PARALLEL_SIZE", kWhole},
    {"MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN", kNodes},
    {"MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD", kNodes},
    {"MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD", kNodes},
    {"MXNET_EXEC_INPLACE_GRAD_SUM_CAP", kWhole},
    {"MXNET_KVSTORE_BIGARRAY_BOUND", kWhole},
    {"MXNET_KVSTORE_SLICE_THRESHOLD", kWhole},
    {"MXNET_KVSTORE_SERIAL_PUSH", kWhole},
    {"MXNET_KVSTORE_USETREE", kWhole},
    {"MXNET_MP_OPENCV_NUM_THREADS", kWhole},
    {"MXNET_PROFILER_AUTOSTART", kWhole},
    {"MXNET_PROFILER_MODE", kWhole},
    {"MXNET_QUANTIZATION_VERBOSE", kWhole},
    {"MXNET_SUBGRAPH_VERBOSE", kWhole},
    {"MXNET_BACKWARD_DO_MIRROR", kWhole},
    {"MXNET_ENABLE_GPU_P2P", kWhole},
    {"MXNET_RNN_USE_WEIGHT_CACHE", kWhole},
    {"MXNET_USE_MKLDNN_RNN", kWhole},
    {"MXNET_DISABLE_MKLDNN_CONV_OPT", kWhole},
    {"MXNET_DISABLE_MKLDNN_FC_OPT", kWhole},
    {"MXNET_DISABLE_MKLDNN_FUSE_CONV_BN", kWhole},
    {"MXNET_DISABLE_MKLDNN_FUSE_CONV_RELU", kWhole},
    {"MXNET_DISABLE_MKLDNN_FUSE_CONV_SUM", kWhole},
    {"MXNET_DISABLE_MKLDNN_TRANSFORMER_OPT", kWhole},
    {"MXNET_DISABLE_MKLDNN_QEM_FLOAT_OUTPUT", kSwitch},
    {"MXNET_DISABLE_MKLDNN_QEM_FUSE_ALL", kSwitch},
    {"MXNET_DISABLE_MKLDNN_QFC_FLOAT_OUTPUT", kSwitch},
    {"MXNET_DISABLE_MKLDNN_QFC_FUSE_ALL", kSwitch},
    {"MXNET_DISABLE_MKLDNN_QTRANSFORMER_FLOAT_OUTPUT", kSwitch},
    {"MXNET_DISABLE_MKLDNN_QTRANSFORMER_FUSE_ALL", kSwitch},
    {"MXNET_MKLDNN_QFC_DYNAMIC_PARAMS", kSwitch},
    {"MXNET_DISABLE_MKLDNN_FUSE_FC_ELTWISE", kFlag},
    {"MXNET_ELIMINATE_COMMON_EXPR", kFlag},
    {"MXNET_ENGINE_INFO", kFlag},
    {"MXNET_EXEC_BULK_EXEC_INFERENCE", kFlag},
    {"MXNET_EXEC_BULK_EXEC_TRAIN", kFlag},
    {"MXNET_EXEC_VERBOSE_LOGGING", kFlag},
    {"MXNET_INFER_STORAGE_TYPE_VERBOSE_LOGGING", kFlag},
    {"MXNET_KVSTORE_DIST_ROW_SPARSE_VERBOSE", kFlag},
    {"MXNET_KVSTORE_LOGTREE", kFlag},
    {"MXNET_MEM_PLAN_VERBOSE_LOGGING", kFlag},
    {"MXNET_MKLDNN_DEBUG", kFlag},
    {"MXNET_MKLDNN_ENABLED", kFlag},
    {"MXNET_MKLDNN_FORCE_FC_AB_FORMAT", kFlag},
    {"MXNET_OUTPUT_TUNING_DATA", kFlag},
    {"MXNET_SAFE_ACCUMULATION", kFlag},
    {"MXNET_STORAGE_FALLBACK_LOG_VERBOSE", kFlag},
    {"MXNET_USE_FUSION", kFlag},
    {"MXNET_VERBOSE_TUNING_INFO", kFlag},
};

bool fits(const Rule& rule, const std::string& value) {
  if (!std::regex_match(value, std::regex(rule.pattern, std::regex::icase))) return false;
  static const std::regex digits("[0-9]+");
  for (std::sregex_iterator at(value.begin(), value.end(), digits), end; at != end; ++at) {
    const std::int64_t number = std::stol(at->str());  // Of ten digits at most.
    if (number < rule.low || number > rule.high) return false;
  }
  return true;
}

// What MXNet maps when it is loaded, and how many threads of its own it starts. Measured, and something more.
constexpr std::size_t kRoom = std::size_t{448} << 20;
constexpr std::size_t kOwnThreads = 8;

std::size_t stack_size() {
  constexpr std::size_t kUnlimited = std::size_t{2} << 20;  // What the C library gives a thread then.
  rlimit limit{};
  return getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ? kUnlimited : limit.rlim_cur;
}

}  // namespace

void require_room() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  mallopt(M_ARENA_MAX, 1);  // Else each thread takes 64 MiB of addresses.
  const char* threads = std::getenv(kThreadsVariable);
  const std::size_t count = threads == nullptr ? 1 : std::strtoul(threads, nullptr, 10);
  const std::size_t room = kRoom + (count + kOwnThreads) * stack_size();
  void* found = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (found == MAP_FAILED) {
    throw RuntimeFailure("memory", "there is not enough of it: to start, MXNet takes " + std::to_string(room >> 20) +
                                       " MiB of addresses, and all are limited to " +
                                       std::to_string(limit.rlim_cur >> 20) + " MiB (ulimit -v); raise the limit");
  }
  munmap(found, room);
}

void check_environment() {
  for (const Row& row : kRows) {
    const char* found = std::getenv(row.name);
    if (found == nullptr) continue;
    const std::string value = found;
    if (value.empty()) {
      unsetenv(row.name);
    } else if (value.size() > kLongest || !fits(row.rule, value)) {
      const std::string shown = value.size() <= kShown ? value : value.substr(0, kShown) + "...";
      throw UsageError(row.name, "is '" + shown + "', not " + row.rule.wanted + "; change it, or unset it");
    }
  }
  if (const char* threads = std::getenv(kThreadsVariable); threads != nullptr) {
    std::string first = threads;
    first.erase(std::min(first.find(','), first.size()));
    first.erase(0, first.find_first_not_of(' '));
    first.erase(first.find_last_not_of(' ') + 1);
    setenv(kThreadsVariable, first.c_str(), kReplace);
  }
}

}  // namespace vqvae
