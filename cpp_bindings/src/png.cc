// PNG files, proved before they are decoded: the steps of vqvae_gluon/data/png.py, which says why.

#include <png.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <string>
#include <utility>
#include <vector>

#include "pixels.hpp"

namespace vqvae {
namespace {

constexpr std::size_t kSignatureBytes = 8;
constexpr std::size_t kDeflateRatio = 1032;  // Deflate packs no more bytes than that into one.
constexpr std::uint64_t kLargestSide = (std::uint64_t{1} << 31U) - 1;
constexpr std::size_t kHeaderBytes = 13;
constexpr std::size_t kColorBytes = 3;
constexpr std::array<std::uint8_t, 6> kPixelsBegin = {'I', 'D', 'A', 'T', 0x78, 0x01};  // And zlib's two bytes.
constexpr std::size_t kMaxStored = 0xFFFF;  // Bytes of a block that deflate does not pack.
enum Color : std::uint8_t { kGray = 0, kRgb = 2, kPalette = 3, kGrayAlpha = 4, kRgba = 6 };

std::uint32_t big_endian(const std::uint8_t* at) {
  return std::uint32_t{at[0]} << 24U | std::uint32_t{at[1]} << 16U | std::uint32_t{at[2]} << 8U | at[3];
}

void put_big_endian(Bytes* bytes, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) bytes->push_back(static_cast<std::uint8_t>(value >> shift));
}

// Its checksum is zero: nobody looks at those that are of our own making.
void put_chunk(Bytes* bytes, const char* kind, const Bytes& body) {
  put_big_endian(bytes, static_cast<std::uint32_t>(body.size()));
  bytes->insert(bytes->end(), kind, kind + 4);
  bytes->insert(bytes->end(), body.begin(), body.end());
  put_big_endian(bytes, 0);
}

using Part = std::pair<const std::uint8_t*, std::size_t>;

// A file's chunks, checked.
class Chunks {
 public:
  Chunks(const Bytes& bytes, const std::string& name) : name_(name) {
    std::string before;
    for (std::size_t at = kSignatureBytes; before != "IEND";) {
      if (bytes.size() - at < 12) reject("it ends early");
      const std::size_t size = big_endian(&bytes[at]);
      if (size > bytes.size() - at - 12) reject("it ends early");
      const std::uint8_t* body = bytes.data() + at + 8;
      const std::string kind(body - 4, body);
      if (crc32_z(0, body - 4, size + 4) != big_endian(body + size)) reject("the checksum of a chunk does not fit");
      const auto is_letter = [](char byte) { return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z'); };
      if (!std::all_of(kind.begin(), kind.end(), is_letter)) reject("a chunk has no proper name");
      take(kind, before, body, size);
      before = kind;
      at += 12 + size;
    }
    if (parts_.empty()) reject("it has no pixels");
    if (color() == kPalette && palette_.empty()) reject("it has no palette");
  }

  std::int64_t width() const { return big_endian(header_.data()); }
  std::int64_t height() const { return big_endian(&header_[4]); }
  bool is_gray() const { return color() == kGray || color() == kGrayAlpha; }
  int turned() const { return turned_; }

  // The file's beginning again, of what the decoder needs alone: up to its pixels.
  Bytes head() const {
    Bytes bytes = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    put_chunk(&bytes, "IHDR", header_);
    if (color() == kPalette) {
      Bytes palette = palette_;
      palette.resize(kColorBytes << bits());  // What it does not have is black.
      put_chunk(&bytes, "PLTE", palette);
    }
    return bytes;
  }

  // The rows, each behind the number of its filter.
  Bytes rows() const {
    const std::size_t size = unpacked_bytes();
    std::size_t packed = 0;
    for (const auto& part : parts_) packed += part.second;
    if (size > packed * kDeflateRatio) reject("its pixels end early");
    Bytes bytes(size + 1);
    z_stream stream{};
    if (inflateInit(&stream) != Z_OK) throw RuntimeFailure(name_, "zlib could not start");
    stream.next_out = bytes.data();
    stream.avail_out = static_cast<uInt>(bytes.size());
    int status = Z_OK;
    for (auto part = parts_.begin(); part != parts_.end() && (status == Z_OK || status == Z_BUF_ERROR); ++part) {
      stream.next_in = const_cast<Bytef*>(part->first);  // NOLINT(cppcoreguidelines-pro-type-const-cast): not written.
      stream.avail_in = static_cast<uInt>(part->second);
      status = inflate(&stream, Z_SYNC_FLUSH);
    }
    const std::size_t found = stream.total_out;
    inflateEnd(&stream);
    if (status == Z_MEM_ERROR) throw RuntimeFailure(name_, "there is not enough memory");
    if (status != Z_STREAM_END && status != Z_OK && status != Z_BUF_ERROR) reject("its pixels are damaged");
    if (found > size) reject("it has more pixels than it says");
    if (found < size || status != Z_STREAM_END) reject("its pixels end early");
    bytes.resize(size);
    return bytes;
  }

 private:
  [[noreturn]] void reject(const char* why) const { throw unreadable(name_, why); }

  unsigned bits() const { return header_[8]; }
  std::uint8_t color() const { return header_[9]; }

  void take(const std::string& kind, const std::string& before, const std::uint8_t* body, std::size_t size) {
    if (header_.empty() != (kind == "IHDR")) reject("its header is not its first chunk");
    if (header_.empty()) {
      header_.assign(body, body + size);
      check_header();
    } else if (kind == "PLTE") {
      if (!palette_.empty() || !parts_.empty() || is_gray() || size % kColorBytes != 0 || size < kColorBytes ||
          size > 256 * kColorBytes) {
        reject("its palette is not sound");
      }
      palette_.assign(body, body + size);
    } else if (kind == "IDAT") {
      if (!parts_.empty() && before != "IDAT") reject("its pixels are in pieces");
      parts_.emplace_back(body, size);
    } else if (kind == "IEND") {
      if (size != 0) reject("its end is not empty");
    } else if (kind == "eXIf") {
      if (!has_exif_) turned_ = exif_orientation(body, size);
      has_exif_ = true;
    } else if (kind[0] < 'a') {
      reject("it has a chunk that is unknown and critical");
    }
  }

  void check_header() const {
    const auto one_of = [this](std::initializer_list<unsigned> all) {
      return std::find(all.begin(), all.end(), bits()) != all.end();
    };
    if (header_.size() != kHeaderBytes) reject("its header is not sound");
    bool fits = one_of({8, 16}) && (color() == kRgb || is_gray() || color() == kRgba);
    if (color() == kGray) fits = one_of({1, 2, 4, 8, 16});
    if (color() == kPalette) fits = one_of({1, 2, 4, 8});
    const auto sides = {static_cast<std::uint64_t>(width()), static_cast<std::uint64_t>(height())};
    const bool sound =
        std::all_of(sides.begin(), sides.end(), [](std::uint64_t side) { return side >= 1 && side <= kLargestSide; });
    if (!fits || !sound || header_[10] != 0 || header_[11] != 0 || header_[12] > 1) reject("its header is not sound");
    if (static_cast<std::uint64_t>(width()) * static_cast<std::uint64_t>(height()) > kMaxPixels) {
      reject("it has too many pixels");
    }
  }

  // Bytes of the rows, each behind the number of its filter.
  std::size_t unpacked_bytes() const {
    constexpr std::array<std::size_t, kRgba + 1> kSamples = {1, 0, 3, 1, 2, 0, 4};
    const std::size_t samples = kSamples.at(color());
    const auto bytes_of = [&](std::size_t columns, std::size_t rows) {
      return columns == 0 ? 0 : rows * (1 + (columns * bits() * samples + 7) / 8);
    };
    const auto w = static_cast<std::size_t>(width());
    const auto h = static_cast<std::size_t>(height());
    if (header_[12] == 0) return bytes_of(w, h);
    // First column and row of the passes of an interlaced image, and the steps.
    constexpr std::array<std::array<std::size_t, 4>, 7> kPasses = {
        {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}}};
    std::size_t total = 0;
    for (const auto& [x, y, dx, dy] : kPasses) total += bytes_of((w + dx - 1 - x) / dx, (h + dy - 1 - y) / dy);
    return total;
  }

  const std::string& name_;
  Bytes header_;
  Bytes palette_;
  std::vector<Part> parts_;  // Of the pixels, packed.
  bool has_exif_ = false;
  int turned_ = 1;
};

// A PNG file that is put together while it is read: a head, and rows that are proved. They are stored as they are, in
// the blocks that deflate has for that, which costs little.
class Rebuilt {
 public:
  Rebuilt(Bytes head, const Bytes& rows) : marks_(std::move(head)) {
    const std::size_t blocks = (rows.size() + kMaxStored - 1) / kMaxStored;
    put_big_endian(&marks_, static_cast<std::uint32_t>(rows.size() + 5 * blocks + 6));
    marks_.insert(marks_.end(), kPixelsBegin.begin(), kPixelsBegin.end());
    std::vector<std::size_t> ends;
    for (std::size_t at = 0; at < rows.size(); at += kMaxStored) {
      const std::size_t size = std::min(rows.size() - at, kMaxStored);
      marks_.push_back(at + size == rows.size() ? 1 : 0);
      for (const std::size_t number : {size, ~size}) {
        marks_.push_back(static_cast<std::uint8_t>(number & 255U));
        marks_.push_back(static_cast<std::uint8_t>(number >> 8U & 255U));
      }
      ends.push_back(marks_.size());
    }
    put_big_endian(&marks_, static_cast<std::uint32_t>(adler32_z(1, rows.data(), rows.size())));
    put_big_endian(&marks_, 0);
    put_chunk(&marks_, "IEND", {});
    std::size_t begin = 0;
    for (std::size_t i = 0; i < ends.size(); ++i) {
      parts_.emplace_back(&marks_[begin], ends[i] - begin);
      parts_.emplace_back(&rows[i * kMaxStored], std::min(rows.size() - i * kMaxStored, kMaxStored));
      begin = ends[i];
    }
    parts_.emplace_back(&marks_[begin], marks_.size() - begin);
  }
  Rebuilt(const Rebuilt&) = delete;
  Rebuilt& operator=(const Rebuilt&) = delete;
  ~Rebuilt() = default;

  // False at its end.
  bool read(std::uint8_t* out, std::size_t size) {
    while (size > 0 && next_ < parts_.size()) {
      Part& part = parts_[next_];
      const std::size_t count = std::min(size, part.second);
      out = std::copy_n(part.first, count, out);
      part = {part.first + count, part.second - count};
      size -= count;
      if (part.second == 0) ++next_;
    }
    return size == 0;
  }

 private:
  Bytes marks_;  // What is not rows.
  std::vector<Part> parts_;
  std::size_t next_ = 0;
};

// libpng reports errors by longjmp, so nothing with a destructor lives in the functions that call setjmp.
class Reader {
 public:
  Reader(Rebuilt* file, const std::string& name) : file_(file), name_(name) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw RuntimeFailure(name_, "libpng could not start");
    }
    png_set_read_fn(png_, this, on_read);
    png_set_crc_action(png_, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_malloc_max(png_, 0);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  // uint8 (1, H, W, channels), channels 1 if the file is gray.
  Tensor read(std::int64_t height, std::int64_t width, std::int64_t channels) {
    Tensor image(DType::kUint8, {1, height, width, channels});
    if (!read_rows(image.data.data(), height, static_cast<std::size_t>(width * channels))) {
      throw unreadable(name_, "its pixels are damaged");
    }
    return image;
  }

 private:
  bool read_rows(png_bytep first, std::int64_t height, std::size_t row_bytes) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;  // NOLINT(cert-err52-cpp,modernize-avoid-setjmp-longjmp)
    png_read_info(png_, info_);
    png_set_expand(png_);
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    const int passes = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    for (int pass = 0; pass < passes; ++pass) {
      for (std::int64_t y = 0; y < height; ++y) {
        png_read_row(png_, first + static_cast<std::size_t>(y) * row_bytes, nullptr);
      }
    }
    png_read_end(png_, nullptr);
    return true;
  }

  static void on_read(png_structp png, png_bytep out, png_size_t size) {
    if (!static_cast<Reader*>(png_get_io_ptr(png))->file_->read(out, size)) png_error(png, "it ends early");
  }
  static void on_error(png_structp png, png_const_charp /*message*/) { png_longjmp(png, 1); }
  static void on_warning(png_structp /*png*/, png_const_charp /*message*/) {}

  Rebuilt* file_;
  const std::string& name_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

Picture read_png(const Bytes& bytes, const std::string& name) {
  const Chunks chunks(bytes, name);
  Picture picture;
  picture.turned = chunks.turned();
  const Bytes rows = chunks.rows();
  Rebuilt file(chunks.head(), rows);
  picture.pixels = Reader(&file, name).read(chunks.height(), chunks.width(), chunks.is_gray() ? 1 : 3);
  return picture;
}

}  // namespace vqvae
