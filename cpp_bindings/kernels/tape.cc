#include "tape.hpp"

#include <omp.h>

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "layer.hpp"
#include "plan.hpp"
#include "sheet.hpp"
#include "square.hpp"

namespace vqvae::kernels {
namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

constexpr std::size_t kNearBytes = std::size_t{1} << 20;  // of the second-level cache, beside the kernel

// A node, and which of its inputs it reads.
using Reading = std::pair<std::size_t, std::size_t>;

// What a node gives.
struct Value {
  Extent extent;
  std::size_t section = kNone;
  std::size_t slot = 0;              // in its section
  Numbers numbers;                   // kept for later sections, for the way back, or for MXNet
  Numbers gradient;                  // what later sections add to it
  std::vector<Numbers> borders;      // the gradients that come from MXNet, one of each output, or that goes there
  Reading first_giver = {kNone, 0};  // who gives to `gradient` first
  std::size_t inner_readers = 0;     // of its own section
  std::vector<std::size_t> layers;   // that read it
  std::vector<std::size_t> outputs;  // that it is
};

// What can be computed block by block: the nodes behind a convolution or a variable, in order.
struct Section {
  std::size_t layer = kNone;
  std::size_t variable = kNone;
  std::vector<std::size_t> nodes;
};

// Blocks that a thread has at hand: for each node of a section what it gives, or the gradient of that. A node that is
// the only reader of another takes that one's block over.
class Desk {
 public:
  explicit Desk(std::size_t slots)
      : memory_(allocate((slots + 1) * kSquare * sizeof(float))), blocks_(slots), is_set_(slots) {
    start();
  }

  void start() {
    for (std::size_t slot = 0; slot < blocks_.size(); ++slot) blocks_[slot] = own(slot);
    std::fill(is_set_.begin(), is_set_.end(), false);
  }
  float* block(std::size_t slot) const { return blocks_[slot]; }
  float* spare() const { return own(blocks_.size()); }
  void take_over(std::size_t slot, std::size_t from) { blocks_[slot] = blocks_[from]; }

  // Add to a block of a sum.
  void give(const float* block, std::size_t slot) {
    if (!is_set_[slot]) {
      if (block != blocks_[slot]) copy(block, blocks_[slot]);
    } else {
      add(block, blocks_[slot]);
    }
    is_set_[slot] = true;
  }
  bool is_set(std::size_t slot) const { return is_set_[slot]; }
  void set(std::size_t slot) { is_set_[slot] = true; }

 private:
  float* own(std::size_t slot) const { return reinterpret_cast<float*>(memory_.get()) + slot * kSquare; }

  Memory memory_;
  std::vector<float*> blocks_;
  std::vector<bool> is_set_;
};

}  // namespace

class Tape::Impl {
  // What a thread uses on the way back, or all share.
  struct Shelf {
    float* matrices(std::size_t first) const { return reinterpret_cast<float*>(memory.get()) + first * kSquare; }

    Bench bench;
    Memory memory;  // the kernels' gradients
  };

 public:
  Impl(const Graph& graph, const std::vector<Data>& inputs, int threads)
      : graph_(graph), values_(graph.nodes.size()), actions_(graph.nodes.size()), threads_(std::max(threads, 1)) {
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      if (graph.nodes[i].is_variable()) variables_.emplace(i, variables_.size());
    }
    if (variables_.size() != inputs.size()) throw std::invalid_argument("the inputs are not the graph's variables");
    for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
      if (!graph.nodes[i].is_variable()) visit(i, inputs);
    }
    for (std::size_t number = 0; number < graph.outputs.size(); ++number) {
      value_of(graph.outputs[number], inputs).outputs.push_back(number);
    }
    allocate_for((images_ + kBlock - 1) / kBlock);
  }

  void forward(const std::vector<Data>& inputs, const std::vector<Data>& outputs) {
    each_thread([&](const Team& team, Desk* desk) {
      for (std::size_t i = 0; i < layers_.size(); ++i) {
        const auto& [weight, bias] = parameters_[i];
        layers_[i].take_kernel(team, numbers(inputs, weight), numbers(inputs, bias), desk->spare());
      }
#pragma omp barrier
      each_part(team, [&](const Part& part) {
        for (const Section& section : sections_) go_forward(section, part, inputs, outputs, desk);
      });
    });
  }

  void backward(const std::vector<Data>& heads, const std::vector<Data>& inputs, const std::vector<Data>& gradients) {
    each_thread([&](const Team& team, Desk* desk) {
      for (std::size_t i = 0; i < layers_.size(); ++i) {
        layers_[i].take_kernel_back(team, numbers(inputs, parameters_[i].first), desk->spare());
      }
#pragma omp barrier
      each_part(team, [&](const Part& part) {
        for (std::size_t number = sections_.size(); number-- > 0;) {
          go_back(sections_[number], part, team, heads, gradients, desk);
        }
      });
#pragma omp barrier
      for (std::size_t i = 0; i < layers_.size(); ++i) {
        const auto& [weight, bias] = parameters_[i];
        std::vector<float*> matrices;
        for (const Shelf& shelf : shelves_) matrices.push_back(shelf.matrices(first_matrix_[i]));
        if (numbers(gradients, weight) != nullptr) {
          layers_[i].give_kernel_gradient(team, matrices, numbers(gradients, weight));
        }
        if (numbers(gradients, bias) != nullptr) layers_[i].give_bias_gradient(team, numbers(gradients, bias));
      }
    });
  }

 private:
  [[noreturn]] static void refuse(const Node& node, const std::string& why) {
    throw std::invalid_argument(node.name + " (" + node.op + ") " + why);
  }

  static float* numbers(const std::vector<Data>& data, std::size_t number) {
    return number == kNone ? nullptr : static_cast<float*>(data[number].values);
  }

  // What a node gives; a variable begins a section.
  Value& value_of(std::size_t i, const std::vector<Data>& inputs) {
    Value& value = values_[i];
    if (value.section != kNone) return value;
    const Data& data = inputs[variables_.at(i)];
    if (data.dtype != mxnet::ext::kFloat32 || data.shape.size() != 4) {
      refuse(graph_.nodes[i], "is not float32 (N, C, H, W)");
    }
    const auto extent = [&](std::size_t axis) { return static_cast<std::size_t>(data.shape[axis]); };
    if (images_ != 0 && images_ != extent(0)) refuse(graph_.nodes[i], "has another number of images");
    images_ = extent(0);
    begin(i, {kNone, variables_.at(i), {i}}, {extent(1), extent(2), extent(3)});
    return value;
  }

  // What a section begins with.
  const Value& value_of(const Section& section) const { return values_[section.nodes.front()]; }

  void begin(std::size_t i, Section section, const Extent& extent) {
    sections_.push_back(std::move(section));
    values_[i].extent = extent;
    values_[i].section = sections_.size() - 1;
  }

  void visit(std::size_t i, const std::vector<Data>& inputs) {
    const Node& node = graph_.nodes[i];
    if (graph_.is_convolution(node)) return convolve(i, inputs);
    const Value& first = value_of(node.inputs[0], inputs);
    std::size_t section = first.section;
    if (node.op == "elemwise_add") {
      const Value& second = value_of(node.inputs[1], inputs);
      const Extent& a = first.extent;
      const Extent& b = second.extent;
      if (a.channels != b.channels || a.height != b.height || a.width != b.width) refuse(node, "takes unlike shapes");
      section = std::max(section, second.section);
    } else {
      set_function(node, &actions_[i]);
    }
    values_[i].extent = first.extent;
    values_[i].section = section;
    values_[i].slot = sections_[section].nodes.size();
    sections_[section].nodes.push_back(i);
  }

  void convolve(std::size_t i, const std::vector<Data>& inputs) {
    const Node& node = graph_.nodes[i];
    Value& value = value_of(node.inputs[0], inputs);
    const Layer layer_of(node, value.extent);
    const Link& link = layer_of.link();
    const std::size_t weight = variables_.at(node.inputs[1]);
    std::size_t size = 1;
    for (const std::int64_t extent : inputs[weight].shape) size *= static_cast<std::size_t>(extent);
    if (size != link.kernel_size()) refuse(node, "has a kernel of another shape");
    std::size_t bias = kNone;
    if (!node.is("no_bias", node.op == "Deconvolution") && node.inputs.size() > 2) {
      bias = variables_.at(node.inputs[2]);
      if (inputs[bias].shape != Shape{static_cast<std::int64_t>(link.out().channels)}) {
        refuse(node, "has a bias of another shape");
      }
    }
    value.layers.push_back(layers_.size());
    begin(i, {layers_.size(), kNone, {i}}, link.out());
    layers_.emplace_back(node, value.extent);
    parameters_.emplace_back(weight, bias);
  }

  // The layer whose operand tells the sign of an activation; if there is none, its numbers are kept.
  const Layer* keeper_of(const Value& value) const {
    for (const std::size_t number : value.layers) {
      if (!layers_[number].reads_windows()) return &layers_[number];
    }
    return nullptr;
  }

  bool is_relu(std::size_t i) const {
    return !graph_.nodes[i].activation().empty() && actions_[i].function == Function::kRelu;
  }

  // Later nodes give their gradients first, and a sum gives to its second input first.
  bool gives_earlier(const Reading& a, const Reading& b) const {
    const auto key = [&](const Reading& place) {
      return std::make_tuple(values_[place.first].section, values_[place.first].slot, place.second);
    };
    return b.first == kNone || key(a) > key(b);
  }

  void allocate_for(std::size_t groups) {
    groups_ = groups;
    std::size_t slots = 0;
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& node = graph_.nodes[i];
      if (values_[i].section == kNone) continue;
      slots = std::max(slots, values_[i].slot + 1);
      if (node.is_variable() || graph_.is_convolution(node)) continue;
      for (std::size_t k = 0; k < node.inputs.size(); ++k) {
        Value& input = values_[node.inputs[k]];
        if (input.section == values_[i].section) {
          ++input.inner_readers;
        } else if (gives_earlier({i, k}, input.first_giver)) {
          input.first_giver = {i, k};
        }
      }
    }
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      Value& value = values_[i];
      if (value.section == kNone) continue;
      const bool is_border = graph_.nodes[i].is_variable() || !value.outputs.empty();
      const bool is_read_later = value.first_giver.first != kNone;
      const bool is_derived = !graph_.nodes[i].activation().empty() && !(is_relu(i) && keeper_of(value) != nullptr);
      const bool is_in_windows = std::any_of(value.layers.begin(), value.layers.end(),
                                             [&](std::size_t number) { return layers_[number].reads_windows(); });
      if (is_border || is_read_later || is_derived || is_in_windows) value.numbers = Numbers(groups, value.extent);
      if (is_read_later) value.gradient = Numbers(groups, value.extent);
      for (std::size_t k = 0; k < std::max<std::size_t>(value.outputs.size(), is_border ? 1 : 0); ++k) {
        value.borders.emplace_back(groups, value.extent);
      }
    }
    Bench bench;
    std::size_t matrices = 0;
    for (Layer& layer : layers_) {
      layer.allocate_for(groups, &bench);
      first_matrix_.push_back(matrices);
      matrices += layer.own_matrices();
    }
    const auto threads = static_cast<std::size_t>(threads_);
    is_shared_ = groups < threads;
    for (std::size_t i = 0; i < threads; ++i) desks_.emplace_back(slots);
    for (std::size_t i = 0; i < (is_shared_ ? 1 : threads); ++i) {
      Shelf& shelf = shelves_.emplace_back();
      shelf.bench.read = bench.read;
      shelf.bench.given = bench.given;
      shelf.bench.make(is_shared_ ? groups : 1);
      shelf.memory = allocate(matrices * kSquare * sizeof(float));
    }
  }

  template <typename Work>
  void each_thread(const Work& work) {
#pragma omp parallel num_threads(threads_)
    {
      const Tiles tiles;
      const Team team = {static_cast<std::size_t>(omp_get_thread_num()),
                         static_cast<std::size_t>(omp_get_num_threads())};
      work(team, &desks_[team.thread]);
    }
  }

  // Each thread takes its groups of images through all sections, so that what a section writes is still near when the
  // next one reads it. Where there are fewer groups than threads, all share each section.
  template <typename Work>
  void each_part(const Team& team, const Work& work) const {
    if (is_shared_) return work(Part{team, 0, groups_});
    team.share(groups_, [&](std::size_t group) { work(Part{{0, 1}, group, 1}); });
  }

  // Of each group some pixels after the others, so that what they read, of so many bytes, stays near while all channels
  // are computed.
  template <typename Work>
  void each_block(const Part& part, const Section& section, std::size_t bytes, const Work& work) const {
    const Extent& extent = value_of(section).extent;
    const std::size_t chunks = blocks_of(extent.channels);
    const std::size_t strips = std::min(bytes / kNearBytes + 1, extent.pixels());
    const std::size_t strip = (extent.pixels() + strips - 1) / strips;
    part.share(chunks * extent.pixels(), [&](std::size_t at) {
      const std::size_t group = at / extent.pixels() / chunks;
      const std::size_t rest = at % (extent.pixels() * chunks);
      const std::size_t first = rest / (strip * chunks) * strip;
      const std::size_t pixels = std::min(strip, extent.pixels() - first);
      const std::size_t within = rest - first * chunks;
      work({group, within / pixels, first + within % pixels});
    });
  }

  std::size_t bytes_given(const Section& section) const {
    std::size_t result = 0;
    for (const std::size_t node : section.nodes) {
      for (const std::size_t number : values_[node].layers) result += layers_[number].given_bytes();
    }
    return result;
  }

  void compute(const Section& section, const Spot& spot, Desk* desk) const {
    desk->start();
    for (std::size_t slot = 0; slot < section.nodes.size(); ++slot) {
      const std::size_t i = section.nodes[slot];
      const Node& node = graph_.nodes[i];
      const Value& value = values_[i];
      if (node.is_variable()) {
        copy(value.numbers.get(spot, desk->spare()), desk->block(slot));
      } else if (slot == 0) {
        layers_[section.layer].compute(spot, desk->block(slot));
      } else {
        const Value& first = values_[node.inputs[0]];
        if (first.section == value.section && first.inner_readers == 1) {
          desk->take_over(slot, first.slot);
        } else {
          copy(block_of(first, value.section, spot, *desk), desk->block(slot));
        }
        if (node.op == "elemwise_add") {
          add(block_of(values_[node.inputs[1]], value.section, spot, *desk), desk->block(slot));
        } else {
          each_number(value, desk->block(slot), [&](float* block, std::size_t count) {
            apply(actions_[i].function, actions_[i].a, actions_[i].b, block, count);
          });
        }
      }
      if (value.numbers && !node.is_variable()) value.numbers.put(desk->block(slot), spot);
      for (const std::size_t number : value.layers) {
        if (!layers_[number].reads_windows()) layers_[number].read(desk->block(slot), spot);
      }
    }
  }

  // Of few channels the others are left out.
  template <typename Work>
  static void each_number(const Value& value, float* block, const Work& work) {
    if (value.extent.channels > Numbers::kFewChannels) return work(block, kSquare);
    alignas(kAlignment) float few[Numbers::kFewChannels * kBlock];
    narrow(block, Numbers::kFewChannels, few);
    work(few, Numbers::kFewChannels * kBlock);
    widen(few, Numbers::kFewChannels, block);
  }

  static const float* block_of(const Value& value, std::size_t section, const Spot& spot, const Desk& desk) {
    return value.section == section ? desk.block(value.slot) : value.numbers.get(spot, desk.spare());
  }

  void go_forward(const Section& section, const Part& part, const std::vector<Data>& inputs,
                  const std::vector<Data>& outputs, Desk* desk) const {
    if (section.variable != kNone) {
      value_of(section).numbers.read(part, numbers(inputs, section.variable), images_);
      part.wait();
    }
    const std::size_t bytes = section.layer == kNone ? 0 : layers_[section.layer].read_bytes();
    if (!is_image(section)) each_block(part, section, bytes, [&](const Spot& spot) { compute(section, spot, desk); });
    part.wait();
    for (const std::size_t node : section.nodes) {
      const Value& value = values_[node];
      for (const std::size_t number : value.outputs) value.numbers.write(part, numbers(outputs, number), images_);
      for (const std::size_t number : value.layers) {
        if (!layers_[number].reads_windows()) continue;
        layers_[number].read_windows(part, value.numbers, desk->spare());
        part.wait();
      }
    }
  }

  // Whether a variable is read by nothing but windows.
  bool is_image(const Section& section) const {
    const Value& value = value_of(section);
    return section.variable != kNone && section.nodes.size() == 1 && keeper_of(value) == nullptr;
  }

  void go_back(const Section& section, const Part& part, const Team& team, const std::vector<Data>& heads,
               const std::vector<Data>& gradients, Desk* desk) const {
    if (section.variable != kNone && numbers(gradients, section.variable) == nullptr) return;
    for (const std::size_t node : section.nodes) {
      const Value& value = values_[node];
      for (std::size_t k = 0; k < value.outputs.size(); ++k) {
        value.borders[k].read(part, numbers(heads, value.outputs[k]), images_);
      }
    }
    part.wait();
    each_block(part, section, bytes_given(section), [&](const Spot& spot) { go_back(section, spot, desk); });
    part.wait();
    if (section.variable != kNone) {
      return value_of(section).borders[0].write(part, numbers(gradients, section.variable), images_);
    }
    const Layer& layer = layers_[section.layer];
    if (layer.gives_windows()) {
      layer.read_gradient_windows(part, desk->spare());
      part.wait();
    }
    const Shelf& shelf = shelves_[is_shared_ ? 0 : team.thread];
    layer.prepare_kernel_gradient(part, shelf.bench);
    part.wait();
    const bool begins = is_shared_ || part.first == groups_ * team.thread / team.count;
    layer.compute_kernel_gradient(part, shelf.bench, begins, shelf.matrices(first_matrix_[section.layer]));
  }

  void go_back(const Section& section, const Spot& spot, Desk* desk) const {
    desk->start();
    for (std::size_t slot = section.nodes.size(); slot-- > 0;) {
      const std::size_t i = section.nodes[slot];
      take_gradient(values_[i], slot, spot, desk);
      if (slot > 0) derive(i, spot, desk);
    }
    const float* gradient = desk->block(0);
    if (section.variable != kNone) {
      value_of(section).borders[0].put(gradient, spot);
    } else {
      layers_[section.layer].read_gradient(gradient, spot);
    }
  }

  // What comes from outside of the section, added to what the section's own nodes have given.
  void take_gradient(const Value& value, std::size_t slot, const Spot& spot, Desk* desk) const {
    for (std::size_t k = 0; k < value.outputs.size(); ++k) {
      desk->give(value.borders[k].get(spot, desk->spare()), slot);
    }
    for (const std::size_t number : value.layers) {
      float* block = desk->is_set(slot) ? desk->spare() : desk->block(slot);
      layers_[number].compute_gradient(spot, block);
      desk->give(block, slot);
    }
    if (value.gradient) desk->give(value.gradient.get(spot, desk->spare()), slot);
    if (!desk->is_set(slot)) clear(desk->block(slot));
  }

  // A node's gradient becomes that of what it reads.
  void derive(std::size_t i, const Spot& spot, Desk* desk) const {
    const Node& node = graph_.nodes[i];
    const Value& value = values_[i];
    float* gradient = desk->block(value.slot);
    if (node.op == "elemwise_add") {
      give(i, 1, spot, desk);
    } else if (is_relu(i) && keeper_of(value) != nullptr) {
      derive_relu(keeper_of(value)->kept(spot), gradient);
    } else {
      const float* result = !node.activation().empty() ? value.numbers.get(spot, desk->spare()) : nullptr;
      kernels::derive(actions_[i].function, actions_[i].a, result, gradient);
    }
    const Value& first = values_[node.inputs[0]];
    if (first.section == value.section && !desk->is_set(first.slot)) {
      desk->take_over(first.slot, value.slot);
      desk->set(first.slot);
    } else {
      give(i, 0, spot, desk);
    }
  }

  void give(std::size_t i, std::size_t number, const Spot& spot, Desk* desk) const {
    const Value& to = values_[graph_.nodes[i].inputs[number]];
    const float* gradient = desk->block(values_[i].slot);
    if (to.section == values_[i].section) return desk->give(gradient, to.slot);
    if (to.first_giver == Reading{i, number}) return to.gradient.put(gradient, spot);
    const float* there = to.gradient.get(spot, desk->spare());
    if (there != desk->spare()) copy(there, desk->spare());
    add(gradient, desk->spare());
    to.gradient.put(desk->spare(), spot);
  }

  const Graph& graph_;
  std::map<std::size_t, std::size_t> variables_;  // node -> number among the inputs
  std::vector<Value> values_;
  std::vector<Action> actions_;  // of the nodes that are functions
  std::vector<Layer> layers_;
  std::vector<std::pair<std::size_t, std::size_t>> parameters_;  // of each layer: numbers of kernel and bias
  std::vector<Section> sections_;
  std::size_t images_ = 0;
  std::size_t groups_ = 0;
  int threads_;
  bool is_shared_ = false;
  std::vector<Desk> desks_;
  std::vector<std::size_t> first_matrix_;  // of each layer
  std::vector<Shelf> shelves_;
};

Tape::Tape(const Graph& graph, const std::vector<Data>& inputs, int threads)
    : impl_(std::make_unique<Impl>(graph, inputs, threads)) {}
Tape::~Tape() = default;

void Tape::forward(const std::vector<Data>& inputs, const std::vector<Data>& outputs) {
  impl_->forward(inputs, outputs);
}

void Tape::backward(const std::vector<Data>& heads, const std::vector<Data>& inputs,
                    const std::vector<Data>& gradients) {
  impl_->backward(heads, inputs, gradients);
}

}  // namespace vqvae::kernels
