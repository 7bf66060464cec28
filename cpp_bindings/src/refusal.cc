#include "refusal.hpp"

#include <algorithm>
#include <regex>
#include <vector>

namespace vqvae {
namespace {

constexpr const char* kCast = "cast the network by net.cast('float32') before net.export(prefix)";

// A pattern of MXNet's words, and the remedy.
struct Row {
  const char* words;
  std::string remedy;
};

const std::vector<Row>& of_graphs() {
  static const std::vector<Row> table = {
      {"Cannot find custom operator",
       "the operator is written in Python, and exists only in a Python process that registers it: build the network "
       "of MXNet's own operators"},
      {"there is no operator|is not registered",
       "MXNet 1.9.1 does not have it: build the network of MXNet's own operators"},
      {"", kSymbolFile}};
  return table;
}

const std::vector<Row>& of_runs() {
  static const std::vector<Row> table = {
      {"FP16 gemm on cpu", std::string("MXNet computes no float16 products on a CPU: ") + kCast},
      {"[Mm]emory", "feed smaller batches"},
      {"[Ss]hape|could not be broadcast|dimension", "feed inputs of the shapes that the graph was made for"},
      {"", "use another engine, or another operator in the network"}};
  return table;
}

// Without where in MXNet's source a check failed, and its expression where words follow.
std::string bare(const std::string& reason) {
  static const std::regex place(R"(MXNetError: |\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: .*?: (?=[^:\s]))");
  return std::regex_replace(reason, place, "");
}

std::string told(const std::string& reason, const std::vector<Row>& table) {
  const auto row = std::find_if(table.begin(), table.end(),
                                [&](const Row& known) { return std::regex_search(reason, std::regex(known.words)); });
  return bare(reason) + "; " + row->remedy;  // The last one has no words.
}

std::string one_type(const std::set<std::string>& types, const std::set<std::string>& fed) {
  std::set<std::string> stored;
  for (const std::string& type : types) {
    if (fed.count(type) == 0) stored.insert(type);
  }
  if (stored.size() != 1 || types.size() == 1) {
    return std::string("the types of inputs and parameters do not fit: ") + kCast;
  }
  const std::string& wanted = *stored.begin();
  if (wanted == "float16" || wanted == "bfloat16") return "the parameters are " + wanted + ": " + kCast;
  return "feed " + wanted + ", the type of the parameters";
}

}  // namespace

std::string graph_refusal(const std::string& reason) { return told(reason, of_graphs()); }

std::string run_refusal(const std::string& reason, const std::set<std::string>& fed) {
  static const std::regex two_types(
      R"(Expected '(\w+)' v\.s\. given '(\w+)'|expected (float\d+|u?int\d+), got (float\d+|u?int\d+))");
  std::smatch match;
  if (!std::regex_search(reason, match, two_types)) return told(reason, of_runs());
  std::set<std::string> types;
  for (std::size_t i = 1; i < match.size(); ++i) {
    if (match[i].matched) types.insert(match[i].str());
  }
  return bare(reason) + "; " + one_type(types, fed);
}

}  // namespace vqvae
