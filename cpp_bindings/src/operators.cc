#include "operators.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace vqvae {

extern const char* const kOperatorsTable;

namespace {

constexpr double kMaxExtent = 0x7fffffff;  // MXNet counts the elements of a tensor in 31 bits.
constexpr std::size_t kMaxNumbers = 4096;  // Of one attribute.
constexpr std::size_t kMaxDigits = 40;     // Of one number.
constexpr std::size_t kTold = 40;          // Letters of an attribute that a message has.
constexpr const char* kSeparators = " \t\n\v\f\r,()[]";

// What the numbers of an attribute may be.
struct Rule {
  enum class Most { kNumber, kInputs, kLastInput };

  double least = 0;
  double most = 0;
  Most kind = Most::kNumber;
  bool product = false;  // Of those above 0, too, it is at most kMaxExtent.
  bool nonzero = false;
};

struct Table {
  std::unordered_set<std::string> bundles;
  std::unordered_set<std::string> others;
  std::unordered_map<std::string, std::string> refused;  // And why.
  std::unordered_set<std::string> subgraphs;             // Operators within whose nodes graphs lie.
  std::unordered_map<std::string, Rule> numbers;         // By the name of the attribute.
};

Rule read_rule(const nlohmann::json& row) {
  Rule rule;
  rule.least = row.at("least").get<double>();
  const nlohmann::json& most = row.at("most");
  if (most.is_string()) {
    rule.kind = most == "inputs" ? Rule::Most::kInputs : Rule::Most::kLastInput;
  } else {
    rule.most = most.get<double>();
  }
  rule.product = row.value("product", false);
  rule.nonzero = row.value("nonzero", false);
  return rule;
}

Table read_table() {
  const nlohmann::json document = nlohmann::json::parse(kOperatorsTable);
  Table table;
  document.at("bundles").get_to(table.bundles);
  document.at("others").get_to(table.others);
  document.at("subgraphs").get_to(table.subgraphs);
  for (const nlohmann::json& row : document.at("refused")) {
    for (const nlohmann::json& name : row.at("operators")) {
      table.refused.emplace(name.get<std::string>(), row.at("because").get<std::string>());
    }
  }
  for (const nlohmann::json& row : document.at("numbers")) {
    for (const nlohmann::json& name : row.at("attributes")) {
      table.numbers.emplace(name.get<std::string>(), read_rule(row));
    }
  }
  return table;
}

const Table& table() {
  static const Table read = read_table();
  return read;
}

// What the caller trusts.
class Trusted {
 public:
  void add(const std::string& name) {
    const std::scoped_lock lock(mutex_);
    names_.insert(name);
  }
  bool has(const std::string& name) {
    const std::scoped_lock lock(mutex_);
    return names_.count(name) > 0;
  }

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
};

Trusted& trusted() {
  static Trusted names;
  return names;
}

// Decimal, with digits before or behind the point; not a number if it is none.
double to_number(std::string_view word) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (!word.empty() && word.back() == 'L') word.remove_suffix(1);  // Python 2's.
  const bool minus = !word.empty() && word.front() == '-';
  if (minus || (!word.empty() && word.front() == '+')) word.remove_prefix(1);
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool begins = !word.empty() && (digit(word[0]) || (word[0] == '.' && word.size() > 1 && digit(word[1])));
  if (!begins || word.size() > kMaxDigits) return kNone;
  double number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (end != word.data() + word.size()) return kNone;
  if (error == std::errc::result_out_of_range) {
    number = word.find('-') == std::string_view::npos ? std::numeric_limits<double>::infinity() : 0;
  }
  return minus ? -number : number;
}

// The numbers of a text, or its first ones, of which there are too many then.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty() && words.size() <= kMaxNumbers) {
    const std::size_t end = std::min(text.find_first_of(kSeparators), text.size());
    if (end > 0 && text.substr(0, end) != "None") words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

std::string whole(double number) {
  const std::string text = std::to_string(number);
  return text.substr(0, text.find('.'));
}

double most_of(const Rule& rule, std::size_t inputs, std::size_t subgraphs) {
  if (rule.kind == Rule::Most::kInputs) return static_cast<double>(inputs + subgraphs);
  return rule.kind == Rule::Most::kLastInput ? static_cast<double>(inputs) - 1 : rule.most;
}

std::string objection(const Rule& rule, const std::string& text, std::size_t inputs, std::size_t subgraphs) {
  const std::vector<std::string_view> words = split(text);
  if (words.size() > kMaxNumbers) return "more than " + std::to_string(kMaxNumbers) + " numbers";
  const double most = most_of(rule, inputs, subgraphs);
  double product = 1;
  for (const std::string_view word : words) {
    const double number = to_number(word);
    if (std::isnan(number) || number < rule.least || number > most) {
      return "it takes numbers from " + whole(rule.least) + " to " + whole(most);
    }
    if (rule.nonzero && number == 0) return "it does not take 0";
    product *= std::max(1.0, number);
  }
  if (rule.product && product > kMaxExtent) return "the product is above " + whole(kMaxExtent);
  return "";
}

}  // namespace

bool is_operator(const std::string& name) {
  const Table& known = table();
  return known.bundles.count(name) > 0 || known.others.count(name) > 0 || known.refused.count(name) > 0;
}

void trust_operator(const std::string& name) { trusted().add(name); }

std::string operator_objection(const std::string& op, Operators which) {
  const Table& known = table();
  if (known.bundles.count(op) > 0 || op == "null" || trusted().has(op)) return "";
  const auto refused = known.refused.find(op);
  if (refused != known.refused.end()) return "the operator " + op + " is refused: " + refused->second;
  if (known.others.count(op) == 0) return "there is no operator " + op;
  return which == Operators::kOfBundles ? "the operator " + op + " is refused: it is none of those of bundles" : "";
}

bool takes_subgraphs(const std::string& op) { return table().subgraphs.count(op) > 0; }

std::string attribute_objection(const std::map<std::string, std::string>& attributes, std::size_t inputs,
                                std::size_t subgraphs) {
  const auto& rules = table().numbers;
  for (const auto& [name, text] : attributes) {
    // Of a variable, what "shape" is of an operator.
    const auto rule = rules.find(name == "__shape__" ? "shape" : name);
    if (rule == rules.end()) continue;
    const std::string why = objection(rule->second, text, inputs, subgraphs);
    if (!why.empty()) return name + " is '" + text.substr(0, kTold) + "': " + why;
  }
  return "";
}

}  // namespace vqvae
