#include "plan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>

#include "convolution.hpp"

namespace vqvae::kernels {
namespace {

using Numbers = std::shared_ptr<const std::vector<float>>;

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

std::vector<float> to_floats(const Data& data, const std::string& name) {
  std::size_t count = 1;
  for (const std::int64_t extent : data.shape) count *= static_cast<std::size_t>(extent);
  std::vector<float> result(count);
  const auto copy = [&](const auto* values) { std::copy(values, values + count, result.begin()); };
  switch (data.dtype) {
    case mxnet::ext::kFloat32:
      copy(static_cast<const float*>(data.values));
      return result;
    case mxnet::ext::kInt8:
      copy(static_cast<const std::int8_t*>(data.values));
      return result;
    default:
      throw std::invalid_argument(name + " is neither float32 nor int8");
  }
}

// Windows of a row, and the gap behind them, in pixels.
std::size_t pitch_of(const Tensor& tensor) {
  const Windows& windows = tensor.windows;
  if (tensor.folded()) return windows.grid_width;
  const auto stride = static_cast<int>(windows.stride);
  const auto width = static_cast<int>(tensor.extent.width);
  std::size_t result = windows.grid_width;
  for (int first = 0; first < std::min(stride, static_cast<int>(windows.columns)); ++first) {
    // Of the columns first, first + stride, ... of all windows of a row.
    const int count = static_cast<int>(windows.grid_width) + (static_cast<int>(windows.columns) - 1 - first) / stride;
    int before = 0;
    int behind = 0;
    for (int k = 0; k < count; ++k) {
      const int x = k * stride + first + windows.x;
      before += x < 0 ? 1 : 0;
      behind += x >= width ? 1 : 0;
    }
    result = std::max(result, static_cast<std::size_t>(count - std::min(before, behind)));
  }
  return result;
}

class Planner {
 public:
  Planner(const Graph& graph, const std::vector<Data>& inputs)
      : graph_(graph), constant_(constants(graph)), values_(graph.nodes.size()) {
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      if (!graph.nodes[i].is_variable()) continue;
      if (variables_.size() == inputs.size()) throw std::invalid_argument("there are fewer inputs than variables");
      variables_.emplace(i, variables_.size());
    }
    inputs_ = &inputs;
  }

  Plan make() {
    std::vector<bool> is_part(graph_.nodes.size(), false);
    for (const Node& node : graph_.nodes) {
      if (!graph_.is_rounding(node)) continue;
      for (const std::size_t k : graph_.rounding(node)) is_part[k] = true;
    }
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (!constant_[i] && !is_part[i] && !graph_.nodes[i].is_variable()) visit(i);
    }
    for (std::size_t number = 0; number < graph_.outputs.size(); ++number) give(graph_.outputs[number], number);
    finish();
    return std::move(plan_);
  }

 private:
  // Where a node's values are: what a step's block holds after so many of its actions.
  struct Value {
    std::size_t step = kNone;
    std::size_t actions = 0;
    Extent extent;
    bool channels_last = false;
  };

  [[noreturn]] static void refuse(const Node& node, const std::string& why) {
    throw std::invalid_argument(node.name + " (" + node.op + ") " + why);
  }

  void visit(std::size_t i) {
    const Node& node = graph_.nodes[i];
    if (graph_.is_convolution(node)) return convolve(i);
    if (node.op == "Embedding") return look_up(i);
    if (node.op == "elemwise_add") return add(i);
    Action action;
    if (graph_.is_rounding(node)) {
      action.function = Function::kHalf;
      return append(i, graph_.input(node, 0).inputs[0], action);
    }
    if (node.op == "transpose" || node.op == "Cast") {
      // The values stay, only what is told of them changes.
      hold(node.inputs[0]);
      values_[i] = values_[node.inputs[0]];
      values_[i].channels_last = false;
      return;
    }
    if (node.op == "argmin") {
      action.kind = Action::Kind::kSmallest;
      append(i, node.inputs[0], action);
      plan_.steps[values_[i].step].searches = true;
      values_[i].extent.channels = 1;
      return;
    }
    if (node.op == "broadcast_mul" || node.op == "broadcast_add") {
      action.kind = node.op == "broadcast_mul" ? Action::Kind::kScaleChannels : Action::Kind::kAddChannels;
      action.numbers = constant(node.inputs[1]);
      hold(node.inputs[0]);
      const auto channels = static_cast<std::int64_t>(values_[node.inputs[0]].extent.channels);
      if (variable(node.inputs[1]).shape != Shape{1, channels, 1, 1}) refuse(node, "takes no number for each channel");
      return append(i, node.inputs[0], action);
    }
    set_function(node, &action);
    append(i, node.inputs[0], action);
  }

  // Make sure that a step gives this value: a variable begins one.
  void hold(std::size_t i) {
    if (values_[i].step != kNone) return;
    const Node& node = graph_.nodes[i];
    const Data& data = variable(i);
    if (!node.is_variable() || data.dtype != mxnet::ext::kFloat32 || data.shape.size() != 4) {
      refuse(node, "is not float32 (N, C, H, W)");
    }
    Step step;
    step.source = Step::Source::kImages;
    step.input = variables_.at(i);
    take_images(node, data.shape);
    const auto extent = [&](std::size_t axis) { return static_cast<std::size_t>(data.shape[axis]); };
    begin(i, std::move(step), {extent(1), extent(2), extent(3)});
  }

  void take_images(const Node& node, const Shape& shape) {
    const auto images = static_cast<std::size_t>(shape[0]);
    if (plan_.images != 0 && plan_.images != images) refuse(node, "has another number of images");
    plan_.images = images;
  }

  void begin(std::size_t i, Step step, Extent extent) {
    step.extent = extent;
    plan_.steps.push_back(std::move(step));
    stores_.emplace_back();
    values_[i] = {plan_.steps.size() - 1, 0, extent, false};
  }

  bool is_tail(const Value& value) const { return value.actions == plan_.steps[value.step].actions.size(); }

  // Do something to a value: in its own step if nothing was done to it there yet, else in a new one.
  void append(std::size_t i, std::size_t input, Action action) {
    hold(input);
    Value value = values_[input];
    if (!is_tail(value)) {
      Step step;
      step.source = Step::Source::kFloats;
      step.input = keep(input, std::nullopt);
      const Extent extent = value.extent;
      begin(i, std::move(step), extent);
      use(plan_.steps.back().input);
      value = values_[i];
    }
    std::vector<Action>& actions = plan_.steps[value.step].actions;
    actions.push_back(std::move(action));
    value.actions = actions.size();
    value.channels_last = false;
    values_[i] = value;
  }

  void add(std::size_t i) {
    const Node& node = graph_.nodes[i];
    std::size_t base = node.inputs[0];
    std::size_t other = node.inputs[1];
    hold(base);
    hold(other);
    const auto is_later = [](const Value& a, const Value& b) {
      return std::make_pair(a.step, a.actions) > std::make_pair(b.step, b.actions);
    };
    if (is_later(values_[other], values_[base])) std::swap(base, other);
    const Extent& a = values_[base].extent;
    const Extent& b = values_[other].extent;
    if (a.channels != b.channels || a.height != b.height || a.width != b.width) refuse(node, "takes unlike shapes");
    Action action;
    action.kind = Action::Kind::kAddTensor;
    action.tensor = keep(other, std::nullopt);
    append(i, base, action);
    plan_.tensors[action.tensor].last_step = std::max(plan_.tensors[action.tensor].last_step, values_[i].step);
  }

  void look_up(std::size_t i) {
    const Node& node = graph_.nodes[i];
    const Data& codes = variable(node.inputs[0]);
    if (codes.shape.size() != 3 || (codes.dtype != mxnet::ext::kInt32 && codes.dtype != mxnet::ext::kFloat32)) {
      refuse(node, "takes no codes (N, h, w) of int32 or float32");
    }
    Step step;
    step.source = Step::Source::kCodes;
    step.input = variables_.at(node.inputs[0]);
    step.codebook = constant(node.inputs[1]);
    take_images(node, codes.shape);
    const auto channels = static_cast<std::size_t>(node.number("output_dim", 0));
    if (channels == 0 || step.codebook->size() % channels != 0) refuse(node, "has a codebook of another shape");
    begin(i, std::move(step),
          {channels, static_cast<std::size_t>(codes.shape[1]), static_cast<std::size_t>(codes.shape[2])});
    values_[i].channels_last = true;
  }

  void convolve(std::size_t i) {
    const Node& node = graph_.nodes[i];
    hold(node.inputs[0]);
    const Convolution convolution(node, values_[node.inputs[0]].extent);
    const Numbers kernel = constant(node.inputs[1]);
    if (kernel->size() != convolution.kernel_size()) refuse(node, "has a kernel of another shape");
    Step step;
    step.source = Step::Source::kProduct;
    step.spread = convolution.spread();
    step.input = keep_windows(node.inputs[0], operand_format(node, *kernel), convolution.windows());
    step.products = convolution.products(*kernel, plan_.tensors[step.input]);
    begin(i, std::move(step), convolution.extent());
    use(plan_.steps.back().input);
    if (!node.is("no_bias", node.op == "Deconvolution") && node.inputs.size() > 2) {
      plan_.steps.back().actions.push_back(bias_of(node));
      values_[i].actions = 1;
    }
  }

  // Where the results of several places are side by side, so is the bias.
  Action bias_of(const Node& node) {
    const Step& step = plan_.steps.back();
    const Numbers bias = constant(node.inputs[2]);
    if (bias->size() != step.extent.channels) refuse(node, "has a bias of another shape");
    auto repeated = std::make_shared<std::vector<float>>();
    for (std::size_t k = 0; k < step.products.front().places; ++k) {
      repeated->insert(repeated->end(), bias->begin(), bias->end());
    }
    Action action;
    action.kind = Action::Kind::kAddChannels;
    action.numbers = std::move(repeated);
    return action;
  }

  // The narrowest form in which the product is still exact: of bytes and of bfloat16 numbers it is.
  Format operand_format(const Node& node, const std::vector<float>& kernel) {
    const Node& input = graph_.input(node, 0);
    if (input.op == "clip" && is_whole(input.inputs[0])) {
      const double low = input.number("a_min", 0);
      const double high = input.number("a_max", 0);
      const bool whole = std::all_of(kernel.begin(), kernel.end(), [](float value) {
        return value >= -128 && value <= 127 && std::nearbyint(value) == value;
      });
      if (whole && low >= 0 && high <= 255) return Format::kByte;
      if (whole && low >= -128 && high <= 127) return Format::kSignedByte;
    }
    if (graph_.is_rounding(input)) {
      const bool halves = std::all_of(kernel.begin(), kernel.end(), [](float value) {
        std::uint32_t bits = 0;
        std::copy_n(reinterpret_cast<const char*>(&value), sizeof bits, reinterpret_cast<char*>(&bits));
        return (bits & 0xffffU) == 0;
      });
      if (halves) return Format::kHalf;
    }
    return Format::kSplit;
  }

  // Whether a value is of whole numbers. Where the graph is cut behind what rounds, they are fed; then the plan is for
  // these numbers alone.
  bool is_whole(std::size_t i) {
    const Node& node = graph_.nodes[i];
    if (!node.is_variable()) return node.op == "rint";
    plan_.is_for_one_run = true;
    const std::vector<float> values = to_floats(variable(i), node.name);
    return std::all_of(values.begin(), values.end(), [](float value) { return std::nearbyint(value) == value; });
  }

  // The tensor in which a value is kept, as floats or as an operand.
  std::size_t keep(std::size_t i, std::optional<Format> format, const Windows& windows = {}) {
    const Value& value = values_[i];
    for (const Kept& kept : stores_[value.step]) {
      if (kept.tensor == kNone || kept.actions != value.actions) continue;
      const Tensor& tensor = plan_.tensors[kept.tensor];
      if (tensor.is_operand != format.has_value()) continue;
      if (format && (tensor.format != *format || !(tensor.windows == windows))) continue;
      return kept.tensor;
    }
    Tensor tensor;
    tensor.extent = value.extent;
    tensor.is_operand = format.has_value();
    tensor.format = format.value_or(Format::kSplit);
    tensor.windows = windows;
    if (format) tensor.pitch = pitch_of(tensor);
    tensor.first_step = value.step;
    tensor.last_step = value.step;
    plan_.tensors.push_back(tensor);
    Action action;
    action.kind = Action::Kind::kStore;
    action.tensor = plan_.tensors.size() - 1;
    stores_[value.step].push_back({value.actions, action.tensor, action});
    return action.tensor;
  }

  // The same; windows of images that nothing but functions were applied to are laid out by a step of their own.
  std::size_t keep_windows(std::size_t i, Format format, const Windows& windows) {
    const Value value = values_[i];
    const Step& from = plan_.steps[value.step];
    Tensor tensor;
    tensor.extent = value.extent;
    tensor.is_operand = true;
    tensor.format = format;
    tensor.windows = windows;
    tensor.by_channel = true;
    tensor.pitch = pitch_of(tensor);
    const auto end = from.actions.begin() + static_cast<std::ptrdiff_t>(value.actions);
    if (from.source != Step::Source::kImages || !tensor.folded() || windows.y > 0 || windows.x > 0 ||
        !std::all_of(from.actions.begin(), end, [](const Action& a) { return a.kind == Action::Kind::kFunction; })) {
      return keep(i, format, windows);
    }
    Step step;
    step.source = Step::Source::kWindows;
    step.input = from.input;
    step.extent = value.extent;
    step.actions.assign(from.actions.begin(), end);
    step.output = plan_.tensors.size();
    tensor.first_step = tensor.last_step = plan_.steps.size();
    plan_.tensors.push_back(tensor);
    plan_.steps.push_back(std::move(step));
    stores_.emplace_back();
    return plan_.tensors.size() - 1;
  }

  void use(std::size_t tensor) {
    plan_.tensors[tensor].last_step = std::max(plan_.tensors[tensor].last_step, plan_.steps.size() - 1);
  }

  void give(std::size_t i, std::size_t number) {
    if (constant_[i]) {
      plan_.fixed_outputs.emplace_back(number, constant(i));
      return;
    }
    hold(i);
    const Value& value = values_[i];
    Action action;
    action.kind = Action::Kind::kOutput;
    action.output = number;
    action.channels = value.extent.channels;
    action.channels_last = value.channels_last;
    stores_[value.step].push_back({value.actions, kNone, action});
  }

  // Put what is stored between what is done, and leave out what nobody reads.
  void finish() {
    for (std::size_t s = 0; s < plan_.steps.size(); ++s) {
      std::vector<Action>& actions = plan_.steps[s].actions;
      std::vector<Action> all;
      for (std::size_t k = 0; k <= actions.size(); ++k) {
        for (const Kept& kept : stores_[s]) {
          if (kept.actions == k) all.push_back(kept.action);
        }
        if (k < actions.size()) all.push_back(actions[k]);
      }
      actions = std::move(all);
      const bool is_read = std::any_of(actions.begin(), actions.end(), [](const Action& action) {
        return action.kind == Action::Kind::kStore || action.kind == Action::Kind::kOutput;
      });
      if (!is_read && plan_.steps[s].source != Step::Source::kWindows) plan_.steps[s].source = Step::Source::kNothing;
    }
  }

  const Data& variable(std::size_t i) const {
    const auto found = variables_.find(i);
    if (found == variables_.end()) refuse(graph_.nodes[i], "is not computed here");
    return (*inputs_)[found->second];
  }

  Numbers constant(std::size_t i) {
    Numbers& known = numbers_[i];
    if (known) return known;
    const Node& node = graph_.nodes[i];
    std::vector<float> values;
    if (node.is_variable()) {
      values = to_floats(variable(i), node.name);
    } else {
      values = *constant(node.inputs[0]);
      const auto scalar = static_cast<float>(node.number("scalar", 0));
      if (node.op == "_mul_scalar") {
        for (float& value : values) value *= scalar;
      } else if (node.op == "square") {
        for (float& value : values) value *= value;
      } else if (node.op == "sum") {
        values = fold_rows(i, values, [](float total, float value) { return total + value; });
      } else if (node.op == "L2Normalization") {
        normalize(i, node.number("eps", 1e-10), &values);
      } else if (node.op != "Reshape" && node.op != "Cast") {
        refuse(node, "is no constant");
      }
    }
    known = std::make_shared<const std::vector<float>>(std::move(values));
    return known;
  }

  // Rows of the parameter that a constant is made of; whatever lies between keeps its shape.
  std::size_t rows_of(std::size_t i) const {
    while (!graph_.nodes[i].is_variable()) i = graph_.nodes[i].inputs[0];
    const Shape& shape = variable(i).shape;
    if (shape.size() < 2) refuse(graph_.nodes[i], "has no rows");
    return static_cast<std::size_t>(shape[0]);
  }

  template <typename Fold>
  std::vector<float> fold_rows(std::size_t i, const std::vector<float>& values, const Fold& fold) const {
    const std::size_t rows = rows_of(i);
    const std::size_t width = values.size() / rows;
    std::vector<float> result(rows, 0.0F);
    for (std::size_t k = 0; k < values.size(); ++k) result[k / width] = fold(result[k / width], values[k]);
    return result;
  }

  void normalize(std::size_t i, double epsilon, std::vector<float>* values) const {
    const auto squares = fold_rows(i, *values, [](float total, float value) { return total + value * value; });
    const std::size_t width = values->size() / squares.size();
    for (std::size_t k = 0; k < values->size(); ++k) {
      (*values)[k] /= std::sqrt(squares[k / width] + static_cast<float>(epsilon));
    }
  }

  struct Kept {
    std::size_t actions;
    std::size_t tensor;
    Action action;
  };

  const Graph& graph_;
  const std::vector<Data>* inputs_ = nullptr;
  std::vector<bool> constant_;
  std::map<std::size_t, std::size_t> variables_;  // node -> number among the inputs
  std::vector<Value> values_;
  std::map<std::size_t, Numbers> numbers_;
  std::vector<std::vector<Kept>> stores_;  // of each step
  Plan plan_;
};

}  // namespace

void set_function(const Node& node, Action* action) {
  const auto scalar = static_cast<float>(node.number("scalar", 0));
  action->a = scalar;
  if (node.op == "_plus_scalar") {
    action->function = Function::kPlus;
  } else if (node.op == "_minus_scalar") {
    action->function = Function::kPlus;
    action->a = -scalar;
  } else if (node.op == "_mul_scalar") {
    action->function = Function::kTimes;
  } else if (node.op == "_div_scalar") {
    action->function = Function::kOver;
  } else if (node.op == "rint") {
    action->function = Function::kRint;
  } else if (node.op == "clip") {
    action->function = Function::kClip;
    action->a = static_cast<float>(node.number("a_min", 0));
    action->b = static_cast<float>(node.number("a_max", 0));
  } else if (const std::string type = node.activation(); !type.empty()) {
    action->function = Function::kSigmoid;
    if (type == "relu") action->function = Function::kRelu;
    if (type == "tanh") action->function = Function::kTanh;
  } else {
    throw std::invalid_argument(node.name + " (" + node.op + ") is not known");
  }
}

Plan make_plan(const Graph& graph, const std::vector<Data>& inputs) { return Planner(graph, inputs).make(); }

}  // namespace vqvae::kernels
