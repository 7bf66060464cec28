#include "vqvae/trace.hpp"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/npy.hpp"

namespace vqvae {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;
constexpr const char* kIndex = "trace.json";

}  // namespace

class TraceWriter::Impl {
 public:
  Impl(std::filesystem::path directory, const std::string& runtime) : directory_(std::move(directory)) {
    make_directory(directory_);
    std::error_code ignored;  // Without its index a trace that is not finished is none.
    std::filesystem::remove(directory_ / kIndex, ignored);
    index_["format"] = kFormat;
    index_["runtime"] = runtime;
    index_["nodes"] = Json::array();
  }

  void add(const std::string& stage, const std::string& name, const std::string& op, const Tensor& value) {
    std::string file = std::to_string(index_["nodes"].size());
    file = std::string(5 - std::min<std::size_t>(5, file.size()), '0') + file + ".npy";
    // Not synced to the disk one by one: a trace without its index is no trace.
    const Bytes bytes = npy_bytes(value);
    std::ofstream out(directory_ / file, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) throw RuntimeFailure((directory_ / file).string(), "could not be written");
    Json node;
    node["stage"] = stage;
    node["name"] = name;
    node["operator"] = op;
    node["shape"] = value.shape;
    node["dtype"] = dtype_name(value.dtype);
    node["sha256"] = sha256(value.data);
    node["file"] = file;
    index_["nodes"].push_back(node);
  }

  void close() {
    const std::string text = index_.dump(1) + "\n";
    write_file(directory_ / kIndex, Bytes(text.begin(), text.end()));
  }

 private:
  std::filesystem::path directory_;
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
void TraceWriter::close() { impl_->close(); }

}  // namespace vqvae
