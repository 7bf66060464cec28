#include "vqvae/trace.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mxnet.hpp"
#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/npy.hpp"

namespace vqvae {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr const char* kIndex = "trace.json";

// The model of the first processor; "" if the system does not tell.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "";
}

// MXNet's variables that change no number; all others may. vqvae_gluon/artifacts/trace.py has the same.
const std::set<std::string>& harmless() {
  static const std::set<std::string> names = {"MXNET_HOME",
                                              "MXNET_LIBRARY_PATH",
                                              "MXNET_MKLDNN_CACHE_NUM",
                                              "MXNET_GLUON_REPO",
                                              "MXNET_SUBGRAPH_VERBOSE",
                                              "MXNET_EXEC_VERBOSE_LOGGING",
                                              "MXNET_STORAGE_FALLBACK_LOG_VERBOSE",
                                              "MXNET_PROFILER_AUTOSTART",
                                              "MXNET_PROFILER_MODE"};
  return names;
}

// MXNet's other variables, as "A=1 B=2".
std::string settings() {
  std::map<std::string, std::string> found;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (text.rfind("MXNET_", 0) != 0 || equals == std::string::npos || equals + 1 == text.size()) continue;
    const std::string name = text.substr(0, equals);
    if (harmless().count(name) == 0) found[name] = text;
  }
  std::string result;
  for (const auto& [name, text] : found) result += (result.empty() ? "" : " ") + text;
  return result;
}

Json environment() {
  const mxnet::InUse use;
  Json result;
  result["mxnet"] = mxnet::version();
  result["processor"] = processor();
  const char* threads = std::getenv("OMP_NUM_THREADS");
  result["threads"] = threads == nullptr ? "" : threads;
  result["settings"] = settings();
  return result;
}

}  // namespace

class TraceWriter::Impl {
 public:
  Impl(std::filesystem::path directory, const std::string& runtime) : directory_(std::move(directory)) {
    std::error_code ignored;
    is_new_ = !std::filesystem::exists(directory_, ignored);
    make_directory(directory_);
    // Without its index a trace that is not finished is none.
    std::filesystem::remove(directory_ / kIndex, ignored);
    index_["format"] = kFormat;
    index_["runtime"] = runtime;
    index_["environment"] = Json::object();  // Has its place here; what it holds is known when MXNet is loaded.
    index_["nodes"] = Json::array();
  }

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  // Nothing is left of a trace that was not finished.
  ~Impl() {
    std::error_code ignored;
    for (const std::string& file : written_) std::filesystem::remove(directory_ / file, ignored);
    if (is_new_) std::filesystem::remove(directory_, ignored);
  }

  void keep_only(std::set<std::string> names) { kept_ = std::move(names); }

  void add(const std::string& stage, const std::string& name, const std::string& op, const Tensor& value) {
    Json node;
    node["stage"] = stage;
    node["name"] = name;
    node["operator"] = op;
    node["shape"] = value.shape;
    node["dtype"] = dtype_name(value.dtype);
    node["sha256"] = sha256(value.data);
    node["nonfinite"] = count_nonfinite(value);
    node["file"] = !kept_ || kept_->count(name) > 0 ? Json(write(value)) : Json(nullptr);
    index_["nodes"].push_back(node);
  }

  void close() {
    index_["environment"] = environment();
    const std::string text = index_.dump(1) + "\n";
    write_file(directory_ / kIndex, Bytes(text.begin(), text.end()));
    written_.clear();
    is_new_ = false;
  }

 private:
  // Write one tensor to a file; gives its name. Not synced to the disk one by one: a trace without its index is none.
  std::string write(const Tensor& value) {
    std::string file = std::to_string(index_["nodes"].size());
    file = std::string(5 - std::min<std::size_t>(5, file.size()), '0') + file + ".npy";
    write_unsynced(directory_ / file, npy_header(value), value.data);
    written_.push_back(file);
    return file;
  }

  std::filesystem::path directory_;
  std::vector<std::string> written_;           // Files that the index does not make valid yet.
  bool is_new_ = false;                        // The directory was made for this trace.
  std::optional<std::set<std::string>> kept_;  // Without it all are written.
  Json index_;
};

TraceWriter::TraceWriter(std::filesystem::path directory, const std::string& runtime)
    : impl_(std::make_unique<Impl>(std::move(directory), runtime)) {}
TraceWriter::TraceWriter(TraceWriter&&) noexcept = default;
TraceWriter& TraceWriter::operator=(TraceWriter&&) noexcept = default;
TraceWriter::~TraceWriter() = default;

void TraceWriter::add(const std::string& stage, const std::string& name, const std::string& op, const Tensor& value) {
  impl_->add(stage, name, op, value);
}
void TraceWriter::keep_only(std::set<std::string> names) { impl_->keep_only(std::move(names)); }
void TraceWriter::close() { impl_->close(); }

}  // namespace vqvae
