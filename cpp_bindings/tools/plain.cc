#include "plain.hpp"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "notes.hpp"
#include "vqvae/error.hpp"
#include "vqvae/files.hpp"
#include "vqvae/network.hpp"
#include "vqvae/npy.hpp"
#include "vqvae/trace.hpp"

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxKeepBytes = std::size_t{1} << 28;

// The names in a file, one a line.
std::set<std::string> read_names(const fs::path& path) {
  const vqvae::Bytes bytes = vqvae::read_file(path, kMaxKeepBytes);
  std::istringstream lines(std::string(bytes.begin(), bytes.end()));
  std::set<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.insert(line);
  }
  return names;
}

// Where NAME=FILE is split: names and files may hold a '=' themselves, so at the first one that a file follows.
std::size_t split_at(const std::string& input) {
  const std::size_t first = input.find('=');
  std::error_code ignored;
  for (std::size_t at = first; at != std::string::npos; at = input.find('=', at + 1)) {
    if (fs::is_regular_file(input.substr(at + 1), ignored)) return at;
  }
  return first;
}

}  // namespace

void trace_export(const Options& options) {
  vqvae::Inputs inputs;
  std::vector<std::string> names;
  for (const std::string& input : options.inputs) {
    const std::size_t equals = split_at(input);
    if (equals == std::string::npos) throw vqvae::UsageError("--input", "takes NAME=FILE.npy, not " + input);
    names.push_back(input.substr(0, equals));
    if (!inputs.emplace(names.back(), vqvae::read_npy(input.substr(equals + 1))).second) {
      throw vqvae::UsageError("--input", "feeds " + names.back() + " twice");
    }
  }
  std::optional<std::set<std::string>> kept;
  if (!options.keep.empty()) kept = read_names(options.keep);
  vqvae::Export files = vqvae::read_export(options.symbol, options.params);
  const std::string note = fusion_note(options, {&files.graph});
  const std::string symbol = files.graph.name;
  vqvae::Network network(std::move(files), names, options.engine_kind(), options.fusion_kind());
  if (!names.empty() &&
      std::none_of(names.begin(), names.end(), [&](const auto& name) { return network.takes(name); })) {
    throw vqvae::InputError(symbol, "has none of the inputs that --input names; it takes nothing");
  }
  std::cerr << note;
  for (const std::string& name : names) {
    if (!network.takes(name)) {
      std::cerr << "reconstruct: note: the graph does not take the input " << vqvae::one_line(name) << '\n';
    }
  }
  vqvae::TraceWriter trace(options.trace, options.runtime());
  if (kept) trace.keep_only(std::move(*kept));
  if (options.wants_taps()) {
    for (const std::string& name : names) trace.add(options.stage, name, "input", inputs[name]);
    network.taps(inputs, [&](const vqvae::Tap& tap) { trace.add(options.stage, tap.name, tap.op, tap.value); });
  } else {
    std::set<std::string> recorded;  // One output may be an output of the graph twice.
    network.run(inputs, [&](const vqvae::Tap& tap) {
      if (recorded.insert(tap.name).second) trace.add(options.stage, tap.name, tap.op, tap.value);
    });
  }
  trace.close();
}
