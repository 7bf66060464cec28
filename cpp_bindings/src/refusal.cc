#include "refusal.hpp"

#include <algorithm>
#include <iterator>
#include <regex>
#include <string>
#include <utility>
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
      {"Cannot find custom operator|calls a function of the program",
       "the operator is written in Python, and exists only in a Python process that registers it: build the network "
       "of MXNet's own operators"},
      {"there is no operator|is not registered",
       "MXNet 1.9.1 does not have it: build the network of MXNet's own operators"},
      {"is refused: it ",
       "build the network of operators that compute tensors from tensors; where you trust the file, allow this one "
       "(--allow-operator NAME)"},
      {"", kSymbolFile}};
  return table;
}

const std::vector<Row>& of_runs() {
  static const std::vector<Row> table = {
      {"FP16 gemm on cpu|float16 .*only supported by CuDNN|dot only supports",
       std::string("MXNet computes no float16 products on a CPU: ") + kCast},
      {"Unsupported (data )?type|only support floating point|data type do not match",
       std::string("MXNet does not compute this type here: feed float32, or ") + kCast},
      {"[Mm]emory", "feed smaller batches"},
      {"[Ss]hape|could not be broadcast|dimension|should be [0-9]D", kFeedShapes},
      {"", "use another engine, or another operator in the network"}};
  return table;
}

// Without where in MXNet's source a check failed, and its expression where words follow.
std::string bare(const std::string& reason) {
  static const std::regex place(
      R"(MXNetError: |Error in operator (?=\S+: )|\[\d\d:\d\d:\d\d\] \S+:\d+: |Check failed: .*?: (?=[^:\s]))");
  return std::regex_replace(reason, place, "");
}

std::string told(const std::string& reason, const std::vector<Row>& table) {
  const auto row = std::find_if(table.begin(), table.end(),
                                [&](const Row& known) { return std::regex_search(reason, std::regex(known.words)); });
  return bare(reason) + "; " + row->remedy;  // The last one has no words.
}

// The floating type that most have, float32 if several do or none has one.
std::string usual_type(const std::map<std::string, std::string>& parameters) {
  std::string usual = "float32";
  std::map<std::string, int> counts;
  for (const auto& [name, type] : parameters) ++counts[type];
  for (const char* type : {"float64", "float16", "bfloat16"}) {
    if (counts[type] > counts[usual]) usual = type;
  }
  return usual;
}

// The remedy where two types do not fit, of the inputs and the parameters or of two parameters. MXNet may have no name
// for the type of an input.
std::string one_type(const std::set<std::string>& types, const std::set<std::string>& fed,
                     const std::map<std::string, std::string>& parameters) {
  std::map<std::string, std::string> among;
  for (const auto& [name, type] : parameters) {
    if (types.count(type) > 0) among.emplace(name, type);
  }
  const std::string usual = usual_type(among);
  std::vector<std::pair<std::string, std::string>> odd;
  std::copy_if(among.begin(), among.end(), std::back_inserter(odd),
               [&](const auto& one) { return one.second != usual && fed.count(one.second) == 0; });
  if (usual == "float16" || usual == "bfloat16") return "the parameters are " + usual + ": " + kCast;
  if (odd.size() == 1) {
    return "the parameter " + odd[0].first + " is " + odd[0].second + ": cast it to " + usual +
           " before net.export(prefix)";
  }
  if (!odd.empty()) {
    return std::to_string(odd.size()) + " parameters are not " + usual + ", " + odd[0].first + " is " + odd[0].second +
           ": " + kCast;
  }
  if (!among.empty() && fed.count(usual) == 0) return "feed " + usual + ", the type of the parameters";
  return std::string("the types of inputs and parameters do not fit: ") + kCast;
}

}  // namespace

std::string graph_refusal(const std::string& reason) { return told(reason, of_graphs()); }

std::string shape_refusal(const std::string& reason) { return bare(reason) + "; " + kFeedShapes; }

std::string run_refusal(const std::string& reason, const std::set<std::string>& fed,
                        const std::map<std::string, std::string>& parameters) {
  static const std::regex two_types(
      R"(Expected '(\w+)' v\.s\. given '(\w+)')"
      R"(|expected (?:data type )?(float\d+|u?int\d+), got (?:data type )?(float\d+|u?int\d+))"
      R"(|Provided = (\w+), inferred type = (\w+))");
  std::smatch match;
  if (!std::regex_search(reason, match, two_types)) return told(reason, of_runs());
  std::set<std::string> types;
  for (std::size_t i = 1; i < match.size(); ++i) {
    if (match[i].matched) types.insert(match[i].str());
  }
  return bare(reason) + "; " + one_type(types, fed, parameters);
}

}  // namespace vqvae
