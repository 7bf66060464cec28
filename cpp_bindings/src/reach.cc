#include "vqvae/reach.hpp"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

namespace vqvae {
namespace {

// Larger numbers are no kernel, stride or padding.
constexpr std::int64_t kMaxExtent = 1 << 12;

// Where a tensor that depends on the input has its height and width, and how fine it is: `up` steps of it are `down` of
// the input's.
struct Grid {
  std::size_t first_side = 0;
  std::size_t rank = 0;
  std::int64_t down = 1;
  std::int64_t up = 1;

  bool operator==(const Grid& other) const {
    return first_side == other.first_side && rank == other.rank && down == other.down && up == other.up;
  }
};

// What is asked of a tensor along one side: steps [begin, end).
struct Span {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

bool is_one_of(const std::string& text, const std::set<std::string>& names) { return names.count(text) > 0; }

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The whole numbers of "(3, 3)" or "3"; none if there is anything else.
std::vector<std::int64_t> numbers(const std::string& text) {
  std::vector<std::int64_t> result;
  const char* next = text.c_str();
  while (*next != '\0') {
    if (std::string("()[], ").find(*next) != std::string::npos) {
      ++next;
      continue;
    }
    char* end = nullptr;
    result.push_back(std::strtoll(next, &end, 10));
    if (end == next || std::abs(result.back()) > kMaxExtent) return {};
    next = end;
  }
  return result;
}

// An attribute for the two sides, or what it is when it is left out.
std::vector<std::int64_t> sides(const Node& node, const std::string& key, std::int64_t otherwise) {
  const std::string text = node.attribute(key, "()");
  return numbers(text).empty() && (text == "()" || text == "[]") ? std::vector<std::int64_t>{otherwise, otherwise}
                                                                 : numbers(text);
}

bool is_true(const Node& node, const std::string& key) { return is_one_of(node.attribute(key, "0"), {"1", "True"}); }

// Operators that make each element of the elements in its place.
bool is_pointwise(const Node& node) {
  static const std::set<std::string> names = {"Activation", "Cast",  "clip",     "_copy", "identity", "relu",
                                              "sigmoid",    "tanh",  "abs",      "exp",   "log",      "sqrt",
                                              "square",     "rsqrt", "negative", "sign",  "round",    "rint",
                                              "floor",      "ceil",  "Dropout",  "add_n", "BlockGrad"};
  if (node.op == "LeakyReLU") return node.attribute("act_type", "leaky") != "rrelu";
  if (node.op == "BatchNorm") return node.attribute("axis", "1") == "1";
  return is_one_of(node.op, names) || ends_with(node.op, "_scalar") || node.op.rfind("elemwise_", 0) == 0 ||
         node.op.rfind("broadcast_", 0) == 0 || is_one_of(node.op, {"_plus", "_Plus", "_add", "_minus", "_mul"});
}

// How an operator that slides over both sides does it; the kernel of the side is the same in every channel.
struct Window {
  std::vector<std::int64_t> kernel, stride, pad, dilate;
  bool grows = false;  // A transposed convolution.
};

std::optional<Window> window(const Node& node) {
  const bool pooling = node.op == "Pooling";
  if (!pooling && node.op != "Convolution" && node.op != "Deconvolution") return std::nullopt;
  Window result{sides(node, "kernel", 0), sides(node, "stride", 1), sides(node, "pad", 0), sides(node, "dilate", 1),
                node.op == "Deconvolution"};
  const bool odd = is_true(node, "global_pool") || node.attribute("pooling_convention", "valid") != "valid" ||
                   !is_one_of(node.attribute("layout", "None"), {"None", "NCHW"}) ||
                   node.attribute("target_shape", "()") != "()";
  for (const auto* extents : {&result.kernel, &result.stride, &result.pad, &result.dilate}) {
    if (odd || extents->size() != 2) return std::nullopt;
  }
  const auto least = [](const std::vector<std::int64_t>& v) { return std::min(v[0], v[1]); };
  const bool sound = least(result.kernel) > 0 && least(result.stride) > 0 && least(result.dilate) > 0 &&
                     least(result.pad) >= 0 && result.stride[0] == result.stride[1];
  return sound ? std::optional<Window>(result) : std::nullopt;
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }

class Walk {
 public:
  Walk(const Graph& graph, std::string input, std::size_t first_side)
      : graph_(graph), input_(std::move(input)), grids_(graph.nodes.size()) {
    source_ = {first_side, first_side + 2, 1, 1};
  }

  std::optional<Reach> run() {
    if (graph_.outputs.size() != 1) return std::nullopt;
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      if (node.name == input_) grids_[i] = source_;
      if (node.op != "null" && !pass(node, &grids_[i])) return std::nullopt;
    }
    const std::optional<Grid>& last = grids_[graph_.outputs[0].first];
    if (!last) return std::nullopt;
    Reach reach{last->down, last->up, 0, 0};
    for (const std::size_t side : {std::size_t{0}, std::size_t{1}}) {
      // Somewhere far from the beginning, at a place where all grids have a step.
      const std::int64_t begin = unit_ * kMaxExtent;
      const Span needed = ask(side, {begin / last->down * last->up, (begin + unit_) / last->down * last->up});
      reach.before = std::max(reach.before, begin - needed.begin);
      reach.after = std::max(reach.after, needed.end - begin - unit_);
    }
    return reach;
  }

 private:
  // The grid of a node's output; untouched if it does not depend on the input. Gives whether the operator is known.
  bool pass(const Node& node, std::optional<Grid>* result) {
    std::optional<Grid> grid;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const std::optional<Grid>& of = grids_[node.inputs[i].first];
      if (!of) continue;
      if (grid && !(*grid == *of)) return false;
      if (i > 0 && !is_pointwise(node) && node.op != "Concat") return false;
      grid = of;
    }
    if (!grid) return true;
    if (const std::optional<Window> slides = window(node)) {
      if (grid->first_side != 2 || grid->rank != 4) return false;
      if (!scale(&*grid, slides->stride[0], slides->grows)) return false;
    } else if (node.op == "Embedding") {
      ++grid->rank;
    } else if (node.op == "transpose") {
      if (!turn(node, &*grid)) return false;
    } else if (is_one_of(node.op, {"argmin", "argmax", "sum", "mean", "max", "min", "norm"})) {
      if (!reduce(node, &*grid)) return false;
    } else if (node.op == "Concat") {
      if (node.attribute("dim", "1") != "1" || grid->first_side < 2) return false;
    } else if (!is_pointwise(node)) {
      return false;
    }
    *result = grid;
    return true;
  }

  bool scale(Grid* grid, std::int64_t stride, bool grows) {
    (grows ? grid->up : grid->down) *= stride;
    const std::int64_t common = std::gcd(grid->down, grid->up);
    grid->down /= common;
    grid->up /= common;
    unit_ = std::lcm(unit_, grid->down);
    return std::max({grid->down, grid->up, unit_}) <= kMaxExtent;
  }

  static bool turn(const Node& node, Grid* grid) {
    const std::vector<std::int64_t> axes = numbers(node.attribute("axes", "()"));
    const auto found = std::find(axes.begin(), axes.end(), static_cast<std::int64_t>(grid->first_side));
    if (axes.size() != grid->rank || found == axes.end() || found + 1 == axes.end()) return false;
    if (found[1] != static_cast<std::int64_t>(grid->first_side) + 1) return false;
    grid->first_side = static_cast<std::size_t>(found - axes.begin());
    return true;
  }

  // Along one axis that is neither height nor width.
  static bool reduce(const Node& node, Grid* grid) {
    const std::vector<std::int64_t> axes = numbers(node.attribute("axis", "()"));
    if (axes.size() != 1 || is_true(node, "exclude")) return false;
    const auto rank = static_cast<std::int64_t>(grid->rank);
    const auto first = static_cast<std::int64_t>(grid->first_side);
    const std::int64_t axis = axes[0] < 0 ? axes[0] + rank : axes[0];
    if (axis < 1 || axis >= rank || axis == first || axis == first + 1) return false;
    if (is_true(node, "keepdims")) return true;
    --grid->rank;
    if (axis < first) --grid->first_side;
    return true;
  }

  // What of the input is needed for these steps of the output.
  Span ask(std::size_t side, const Span& wanted) const {
    std::vector<std::optional<Span>> asked(graph_.nodes.size());
    asked[graph_.outputs[0].first] = wanted;
    Span result = {wanted.begin, wanted.begin};
    for (std::size_t i = graph_.nodes.size(); i-- > 0;) {
      const std::optional<Span> own = asked[i];
      if (!own) continue;
      const Node& node = graph_.nodes[i];
      if (node.name == input_) result = *own;
      const std::optional<Window> slides = window(node);
      const Span needed = slides ? before(*slides, side, *own) : *own;
      for (const Reference& input : node.inputs) {
        if (!grids_[input.first]) continue;
        std::optional<Span>& span = asked[input.first];
        span = span ? Span{std::min(span->begin, needed.begin), std::max(span->end, needed.end)} : needed;
      }
    }
    return result;
  }

  static Span before(const Window& slides, std::size_t side, const Span& out) {
    const std::int64_t stride = slides.stride[side];
    const std::int64_t pad = slides.pad[side];
    const std::int64_t width = slides.dilate[side] * (slides.kernel[side] - 1);
    if (!slides.grows) return {out.begin * stride - pad, (out.end - 1) * stride - pad + width + 1};
    return {-floor_div(-(out.begin + pad - width), stride), floor_div(out.end - 1 + pad, stride) + 1};
  }

  const Graph& graph_;
  std::string input_;
  Grid source_;
  std::vector<std::optional<Grid>> grids_;  // Of the nodes that depend on the input.
  std::int64_t unit_ = 1;                   // A number of input steps after which all grids have one.
};

}  // namespace

std::optional<Reach> find_reach(const Graph& graph, const std::string& input, std::size_t first_side) {
  return Walk(graph, input, first_side).run();
}

}  // namespace vqvae
