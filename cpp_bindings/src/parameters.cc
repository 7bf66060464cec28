#include "vqvae/parameters.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "document.hpp"
#include "vqvae/error.hpp"

namespace vqvae {
namespace {

constexpr std::uint64_t kFileMagic = 0x112;
constexpr std::uint32_t kNumpyMagic = 0xF993FACA;      // Under NumPy's rules for shapes.
constexpr std::uint32_t kTensorMagic = 0xF993FAC9;     // Since MXNet 0.12.
constexpr std::uint32_t kOldTensorMagic = 0xF993FAC8;  // Before; has no storage type. In 2016 there was no magic.
constexpr std::int32_t kDense = 0;
constexpr std::int32_t kRowSparse = 1;
constexpr std::int32_t kCsr = 2;
constexpr std::int32_t kCpu = 1;  // The device.
constexpr std::uint32_t kMaxDimensions = 32;
constexpr std::int64_t kMaxElements = 0x7fffffff;  // MXNet counts them in 31 bits.
constexpr std::uint64_t kMaxNameBytes = 4096;
// The least that a tensor and a name take.
constexpr std::uint64_t kMinTensorBytes = 20;
constexpr std::uint64_t kMinNameBytes = 8;
// What a tensor takes beside its extents and values, as it is written here.
constexpr std::size_t kWrittenBytes = 24;
// What the dense forms of all sparse tensors of a file may take: so many times the file, and so many bytes.
constexpr std::size_t kDenseFactor = 16;
constexpr std::size_t kDenseSpare = std::size_t{32} << 20;

constexpr const char* kDamaged = "copy the file again and compare its digest";
constexpr const char* kWanted = "give the .params file that net.export(prefix) writes";

// Types that MXNet knows and no runtime here takes: name and bytes of a value. The first has the number 7.
struct OtherType {
  const char* name;
  std::size_t size;
};
constexpr std::int32_t kFirstOtherType = 7;
constexpr std::array<OtherType, 6> kOtherTypes = {
    {{"bool", 1}, {"int16", 2}, {"uint16", 2}, {"uint32", 4}, {"uint64", 8}, {"bfloat16", 2}}};

bool is_usable(std::int32_t flag) { return is_dtype(flag) && flag < kFirstOtherType; }

// Takes values off the front of a buffer and never past its end.
class Reader {
 public:
  Reader(const Bytes& bytes, const std::string& name) : next_(bytes.data()), left_(bytes.size()), name_(name) {}

  InputError damaged(const std::string& why) const { return {name_, "is damaged: " + why + "; " + kDamaged}; }
  InputError refused(const std::string& why) const { return {name_, why}; }

  std::size_t left() const { return left_; }

  const std::uint8_t* bytes(std::uint64_t size) {
    if (size > left_) {
      throw damaged("it ends early: " + std::to_string(size) + " bytes are wanted, " + std::to_string(left_) +
                    " are left");
    }
    const std::uint8_t* taken = next_;
    next_ += size;
    left_ -= static_cast<std::size_t>(size);
    return taken;
  }

  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, bytes(sizeof value), sizeof value);
    return value;
  }

  // A number of things of at least so many bytes each.
  std::uint64_t count(std::uint64_t minimum_bytes) {
    const auto number = take<std::uint64_t>();
    if (number > left_ / minimum_bytes) {
      throw damaged("it claims " + std::to_string(number) + " entries in " + std::to_string(left_) + " bytes");
    }
    return number;
  }

 private:
  const std::uint8_t* next_;
  std::size_t left_;
  const std::string& name_;
};

// Indices of a sparse tensor in a file, of type int32 or int64.
struct Indices {
  DType dtype = DType::kInt64;
  std::int64_t size = 0;
  const std::uint8_t* data = nullptr;

  std::int64_t at(std::int64_t i) const {
    std::int64_t wide = 0;
    std::int32_t narrow = 0;
    if (dtype == DType::kInt32) {
      std::memcpy(&narrow, data + i * static_cast<std::int64_t>(sizeof narrow), sizeof narrow);
      return narrow;
    }
    std::memcpy(&wide, data + i * static_cast<std::int64_t>(sizeof wide), sizeof wide);
    return wide;
  }
};

// A tensor as the file has it. `kept` is the shape of the values that are stored.
struct Stored {
  std::int32_t storage = kDense;
  std::int32_t flag = 0;
  Shape shape;
  Shape kept;
  const std::uint8_t* values = nullptr;
  std::vector<Indices> indices;  // Rows of row_sparse; beginnings of rows, and columns, of csr.

  const char* storage_name() const { return storage == kRowSparse ? "row_sparse" : "csr"; }
  std::size_t item_bytes() const {
    return is_usable(flag) ? item_size(static_cast<DType>(flag))
                           : kOtherTypes.at(static_cast<std::size_t>(flag - kFirstOtherType)).size;
  }
  std::size_t dense_bytes() const { return element_count(shape) * item_bytes(); }
};

void put_extent(Reader* reader, std::int64_t extent, std::int64_t lowest, std::int64_t* elements, Shape* shape) {
  const bool fits = extent >= lowest && extent <= kMaxElements;
  if (fits) *elements *= std::max<std::int64_t>(extent, 1);
  if (!fits || *elements > kMaxElements) {
    throw reader->damaged("a tensor has an extent of " + std::to_string(extent));
  }
  shape->push_back(extent);
}

void check_dimensions(const Reader& reader, std::int64_t dimensions) {
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    throw reader.damaged("a tensor has " + std::to_string(dimensions) + " dimensions");
  }
}

Shape read_shape(Reader* reader, std::int64_t lowest, bool scalars) {
  const auto dimensions = reader->take<std::int32_t>();
  Shape shape;
  if (scalars && dimensions == 0) return shape;
  check_dimensions(*reader, dimensions);
  std::int64_t elements = 1;
  for (std::int32_t i = 0; i < dimensions; ++i) {
    put_extent(reader, reader->take<std::int64_t>(), lowest, &elements, &shape);
  }
  return shape;
}

// Of files without a magic number: the number of dimensions has been read in its place.
Shape read_first_shape(Reader* reader, std::uint32_t dimensions) {
  check_dimensions(*reader, dimensions);
  Shape shape;
  std::int64_t elements = 1;
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    put_extent(reader, reader->take<std::uint32_t>(), 1, &elements, &shape);
  }
  return shape;
}

Indices read_index_layout(Reader* reader) {
  const auto flag = reader->take<std::int32_t>();
  const Shape shape = read_shape(reader, 0, false);
  Indices indices;
  if ((flag != static_cast<int>(DType::kInt32) && flag != static_cast<int>(DType::kInt64)) || shape.size() != 1) {
    throw reader->damaged("the indices of a tensor have the type " + std::to_string(flag) + " and the shape " +
                          to_string(shape));
  }
  indices.dtype = static_cast<DType>(flag);
  indices.size = shape[0];
  return indices;
}

// The shape of the values that a sparse tensor stores. The number of indices says how many rows there are: the first
// extent that MXNet writes may be older than the values.
Shape kept_shape(const Stored& tensor, const Reader& reader) {
  Shape kept = {tensor.indices.back().size};
  if (tensor.storage == kRowSparse) kept.insert(kept.end(), tensor.shape.begin() + 1, tensor.shape.end());
  const Shape& told = tensor.kept;
  bool fits = told.size() == kept.size() && std::equal(kept.begin() + 1, kept.end(), told.begin() + 1);
  if (tensor.storage == kRowSparse) {
    fits = fits && tensor.indices[0].size <= tensor.shape[0];
  } else {
    fits = fits && tensor.shape.size() == 2 && tensor.indices[0].size == tensor.shape[0] + 1;
  }
  if (!fits) {
    throw reader.damaged(std::string("the parts of a ") + tensor.storage_name() + " tensor do not fit together");
  }
  return kept;
}

Stored read_tensor(Reader* reader) {
  const auto magic = reader->take<std::uint32_t>();
  const bool numpy = magic == kNumpyMagic;
  Stored tensor;
  if (magic == kTensorMagic || numpy) {
    tensor.storage = reader->take<std::int32_t>();
    if (tensor.storage < kDense || tensor.storage > (numpy ? kDense : kCsr)) {
      throw reader->damaged("a tensor has the unknown storage type " + std::to_string(tensor.storage));
    }
    if (tensor.storage != kDense) tensor.kept = read_shape(reader, 0, false);
    tensor.shape = read_shape(reader, numpy ? 0 : 1, numpy);
  } else {
    tensor.shape = magic == kOldTensorMagic ? read_shape(reader, 1, false) : read_first_shape(reader, magic);
  }
  reader->bytes(2 * sizeof(std::int32_t));  // The device that it was saved from.
  tensor.flag = reader->take<std::int32_t>();
  if (tensor.flag < 0 || tensor.flag >= kFirstOtherType + static_cast<std::int32_t>(kOtherTypes.size())) {
    throw reader->damaged("a tensor has the unknown type " + std::to_string(tensor.flag));
  }
  for (std::int32_t i = 0; i < tensor.storage; ++i) tensor.indices.push_back(read_index_layout(reader));
  tensor.kept = tensor.storage == kDense ? tensor.shape : kept_shape(tensor, *reader);
  tensor.values = reader->bytes(element_count(tensor.kept) * tensor.item_bytes());
  for (Indices& indices : tensor.indices) {
    indices.data = reader->bytes(static_cast<std::uint64_t>(indices.size) * item_size(indices.dtype));
  }
  return tensor;
}

std::int64_t within(const Reader& reader, std::int64_t index, std::int64_t limit, const std::string& name) {
  if (index < 0 || index >= limit) throw reader.damaged("an index of " + name + " is outside of its shape");
  return index;
}

// Take a place. MXNet takes indices in any order. Of two that are equal, its operators take the last or the sum.
std::size_t take_place(const Reader& reader, std::int64_t place, std::vector<bool>* taken, const std::string& name) {
  const auto at = static_cast<std::size_t>(place);
  if ((*taken)[at]) throw reader.damaged("an index of " + name + " occurs twice");
  (*taken)[at] = true;
  return at;
}

void fill_rows(const Stored& stored, const Reader& reader, const std::string& name, Tensor* tensor) {
  const Indices& rows = stored.indices[0];
  const std::size_t bytes = stored.dense_bytes() / static_cast<std::size_t>(stored.shape[0]);  // Of a row.
  std::vector<bool> taken(static_cast<std::size_t>(stored.shape[0]));
  for (std::int64_t i = 0; i < rows.size; ++i) {
    const std::size_t row = take_place(reader, within(reader, rows.at(i), stored.shape[0], name), &taken, name);
    std::memcpy(tensor->data.data() + row * bytes, stored.values + static_cast<std::size_t>(i) * bytes, bytes);
  }
}

void fill_csr(const Stored& stored, const Reader& reader, const std::string& name, Tensor* tensor) {
  const Indices& begins = stored.indices[0];
  const Indices& columns = stored.indices[1];
  const std::size_t bytes = stored.item_bytes();
  std::vector<bool> taken(element_count(stored.shape));
  std::int64_t at = 0;
  for (std::int64_t row = 0; row < stored.shape[0]; ++row) {
    const std::int64_t end = begins.at(row + 1);
    if (begins.at(0) != 0 || end < at || end > columns.size) {
      throw reader.damaged("the rows of " + name + " do not begin one behind the other");
    }
    for (; at < end; ++at) {
      const std::int64_t column = within(reader, columns.at(at), stored.shape[1], name);
      const std::size_t place = take_place(reader, row * stored.shape[1] + column, &taken, name);
      std::memcpy(tensor->data.data() + place * bytes, stored.values + static_cast<std::size_t>(at) * bytes, bytes);
    }
  }
  if (at != columns.size) throw reader.damaged("the rows of " + name + " do not begin one behind the other");
}

// Refuse a type that no runtime takes, and a sparse tensor whose dense form takes more bytes than that.
void require_usable(const Stored& stored, const Reader& reader, const std::string& name, std::size_t allowance) {
  if (!is_usable(stored.flag)) {
    throw reader.refused("holds " + name + " in " +
                         kOtherTypes.at(static_cast<std::size_t>(stored.flag - kFirstOtherType)).name +
                         ", which is not supported; cast it to float32 before net.export(prefix)");
  }
  if (stored.storage != kDense && stored.dense_bytes() > allowance) {
    throw reader.refused("holds " + name + " as " + stored.storage_name() + " of the shape " + to_string(stored.shape) +
                         ", whose dense form takes " + std::to_string(stored.dense_bytes()) + " bytes, more than " +
                         std::to_string(kDenseFactor) + " times the file and " + std::to_string(kDenseSpare >> 20U) +
                         " MiB; store it dense, by tostype('default')");
  }
}

Tensor make_dense(const Stored& stored, const Reader& reader, const std::string& name) {
  const auto dtype = static_cast<DType>(stored.flag);
  if (stored.storage != kDense) {
    Tensor tensor(dtype, stored.shape);
    (stored.storage == kRowSparse ? fill_rows : fill_csr)(stored, reader, name, &tensor);
    return tensor;
  }
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = stored.shape;
  tensor.data.assign(stored.values, stored.values + stored.dense_bytes());
  return tensor;
}

// How many bytes the character of UTF-8 takes that begins with this byte; 0 if none does.
std::size_t utf8_size(unsigned first) {
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  if (first < 0xE0) return 2;
  return first < 0xF0 ? 3 : 4;
}

// Whether a text is UTF-8: each character in as few bytes as it takes, no half of a surrogate pair, none above
// U+10FFFF.
bool is_utf8(const std::string& text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto at = [&](std::size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U; };
    const unsigned first = at(0);
    const std::size_t size = utf8_size(first);
    if (size == 0) return false;
    for (std::size_t k = 1; k < size; ++k) {
      if ((at(k) & 0xC0U) != 0x80) return false;
    }
    const unsigned second = at(1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0)) return false;
    if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second >= 0x90)) return false;
    i += size;
  }
  return true;
}

std::string read_name(Reader* reader) {
  const auto length = reader->take<std::uint64_t>();
  if (length > kMaxNameBytes) throw reader->damaged("a name is " + std::to_string(length) + " bytes long");
  const auto* text = reinterpret_cast<const char*>(reader->bytes(length));
  std::string name(text, text + length);
  if (!is_utf8(name)) throw reader->damaged("a name is no UTF-8");
  return name;
}

void read_magic(Reader* reader, const Bytes& bytes) {
  std::array<std::uint64_t, 2> magic = {kFileMagic, 0};
  const std::size_t size = std::min(bytes.size(), sizeof magic);
  if (size > 0 && std::memcmp(bytes.data(), magic.data(), size) != 0) {
    const char* kind = bytes[0] == '{' ? "JSON, such as a symbol file" : file_kind(bytes);
    if (kind == nullptr) kind = "a file of another kind";
    throw reader->refused(std::string("does not begin as a .params file of MXNet does: it is ") + kind + "; " +
                          kWanted);
  }
  reader->bytes(sizeof magic);
}

}  // namespace

Parameters parse_parameters(const Bytes& bytes, const std::string& name) {
  Reader reader(bytes, name);
  read_magic(&reader, bytes);
  std::vector<Stored> tensors;
  for (std::uint64_t left = reader.count(kMinTensorBytes); left > 0; --left) tensors.push_back(read_tensor(&reader));
  std::vector<std::string> names;
  for (std::uint64_t left = reader.count(kMinNameBytes); left > 0; --left) names.push_back(read_name(&reader));
  if (reader.left() > 0) throw reader.damaged(std::to_string(reader.left()) + " bytes follow its end");
  if (names.empty() && !tensors.empty()) {
    throw reader.refused("is a list of " + std::to_string(tensors.size()) +
                         " tensors without names, which fit no graph; " + kWanted);
  }
  if (names.size() != tensors.size()) {
    throw reader.damaged("it has " + std::to_string(tensors.size()) + " tensors and " + std::to_string(names.size()) +
                         " names");
  }
  std::size_t allowance = kDenseFactor * bytes.size() + kDenseSpare;
  Parameters parameters;
  for (std::size_t i = 0; i < names.size(); ++i) {
    require_usable(tensors[i], reader, names[i], allowance);
    if (tensors[i].storage != kDense) allowance -= tensors[i].dense_bytes();
    if (!parameters.emplace(names[i], make_dense(tensors[i], reader, names[i])).second) {
      throw reader.damaged("a name occurs twice");
    }
  }
  return parameters;
}

Parameters full_names(Parameters parameters, const std::vector<std::string>& arguments,
                      const std::vector<std::string>& auxiliaries, const std::string& file) {
  const auto is_among = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::vector<std::string> strange;
  for (const auto& [name, tensor] : parameters) {
    if (!has_prefix(name) && !is_among(arguments, name) && !is_among(auxiliaries, name)) strange.push_back(name);
  }
  const auto is_path = [](const std::string& name) { return name.find('.') != std::string::npos; };
  if (!strange.empty() &&
      (strange.size() == parameters.size() || std::any_of(strange.begin(), strange.end(), is_path))) {
    throw InputError(file, "is not of an export: it has '" + strange.front() +
                               "', and the graph takes no parameter of this name; net.save_parameters() writes such "
                               "files, for load_parameters() alone: deploy the file that net.export(prefix) writes");
  }
  Parameters full;
  for (auto& [name, tensor] : parameters) {
    const std::string called = has_prefix(name) ? name : (is_among(auxiliaries, name) ? "aux:" : "arg:") + name;
    if (!full.emplace(called, std::move(tensor)).second) {
      throw InputError(file,
                       std::string("has a parameter twice, with and without the prefix arg: or aux:; ") + kWanted);
    }
  }
  return full;
}

bool has_prefix(const std::string& name) { return name.rfind("arg:", 0) == 0 || name.rfind("aux:", 0) == 0; }

Bytes parameters_bytes(Parameters parameters, bool numpy) {
  std::size_t size = 4 * sizeof(std::uint64_t);
  for (const auto& [name, tensor] : parameters) {
    size +=
        kWrittenBytes + tensor.shape.size() * sizeof(std::int64_t) + tensor.data.size() + kMinNameBytes + name.size();
  }
  Bytes bytes;
  bytes.reserve(size);
  const auto put = [&bytes](auto value) {
    const auto* first = reinterpret_cast<const std::uint8_t*>(&value);
    bytes.insert(bytes.end(), first, first + sizeof value);
  };
  put(kFileMagic);
  put(std::uint64_t{0});
  put(static_cast<std::uint64_t>(parameters.size()));
  for (auto& [name, tensor] : parameters) {
    put(numpy ? kNumpyMagic : kTensorMagic);
    put(kDense);
    put(static_cast<std::int32_t>(tensor.shape.size()));
    for (const std::int64_t extent : tensor.shape) put(extent);
    put(kCpu);
    put(std::int32_t{0});
    put(static_cast<std::int32_t>(tensor.dtype));
    bytes.insert(bytes.end(), tensor.data.begin(), tensor.data.end());
    Bytes().swap(tensor.data);
  }
  put(static_cast<std::uint64_t>(parameters.size()));
  for (const auto& [name, tensor] : parameters) {
    put(static_cast<std::uint64_t>(name.size()));
    bytes.insert(bytes.end(), name.begin(), name.end());
  }
  return bytes;
}

}  // namespace vqvae
