// Traces: every node's output of one run, on disk (docs/architecture.md, "The trace").
#ifndef VQVAE_TRACE_HPP_
#define VQVAE_TRACE_HPP_

#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "vqvae/tensor.hpp"

namespace vqvae {

// Records tensors into a directory, one .npy file each; the index is written last. Without
// `close` nothing of it is left. Move-only.
class TraceWriter {
 public:
  // Throws RuntimeFailure if the directory cannot be made.
  TraceWriter(std::filesystem::path directory, const std::string& runtime);
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;
  TraceWriter(TraceWriter&&) noexcept;
  TraceWriter& operator=(TraceWriter&&) noexcept;
  ~TraceWriter();

  // From now on write the values of tensors with these names alone; the others have a row in the index and no file.
  void keep_only(std::set<std::string> names);

  // Record one tensor. `op` is MXNet's name of the operator, "input" for what was fed.
  void add(const std::string& stage, const std::string& name, const std::string& op, const Tensor& value);

  // Write the index, which tells MXNet's version, the processor, the threads and MXNet's variables. Throws
  // RuntimeFailure.
  void close();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vqvae

#endif  // VQVAE_TRACE_HPP_
