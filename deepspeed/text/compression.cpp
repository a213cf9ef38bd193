// Compressed files, known by their first bytes, as streams of what is in them.
#include "deepspeed/text/compression.h"

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <new>
#include <utility>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

constexpr size_t kInputBytes = size_t{1} << 18;
constexpr int kMaxZstdWindowLog = 27;
constexpr uint64_t kMaxXzMemory = uint64_t{256} << 20;

struct Ending {
  std::string_view text;
  Compression compression;
};
constexpr std::array<Ending, 4> kEndings{
    {{".gz", Compression::gzip},
     {".zst", Compression::zstd},
     {".xz", Compression::xz},
     {".bz2", Compression::bzip2}}};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// The ending of `name`, or null.
const Ending* ending_of(std::string_view name) {
  for (const Ending& ending : kEndings) {
    const size_t n = ending.text.size();
    if (name.size() > n &&
        std::equal(
            ending.text.begin(),
            ending.text.end(),
            name.end() - static_cast<std::ptrdiff_t>(n),
            [](char a, char b) { return a == lower(b); })) {
      return &ending;
    }
  }
  return nullptr;
}

Error damaged(const std::string& name, const std::string& what) {
  return Error(ExitCode::data, what, name, "make or download this file again");
}

// The compressed side of a decompressor: a window of bytes not yet used.
class Input {
 public:
  explicit Input(std::unique_ptr<ByteStream> stream)
      : stream_(std::move(stream)), buffer_(kInputBytes) {}

  // Reads on if all is used. False at the end of the file.
  bool fill() {
    if (rest_.empty()) {
      rest_ = std::span(buffer_).first(stream_->read(buffer_));
      taken_ += rest_.size();
    }
    return !rest_.empty();
  }
  // For a file that ends too early.
  Error truncated(Compression compression, const std::string& name) const {
    return damaged(
        name,
        "the " + name_of(compression) + " file ends after " +
            std::to_string(taken_) + " bytes: truncated");
  }
  std::span<char> rest() const {
    return rest_;
  }
  void use(size_t n) {
    rest_ = rest_.subspan(n);
  }

 private:
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> buffer_;
  std::span<char> rest_;
  uint64_t taken_ = 0;
};

class GzipStream : public ByteStream {
 public:
  GzipStream(std::unique_ptr<ByteStream> compressed, std::string name)
      : input_(std::move(compressed)), name_(std::move(name)) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    if (inflateInit2(&state_, kGzipOnly) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~GzipStream() override {
    inflateEnd(&state_);
  }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  size_t read(std::span<char> buffer) override {
    while (next_member()) {
      const size_t n = inflate_into(buffer);
      if (n > 0) {
        return n;
      }
    }
    return 0;
  }

 private:
  // True if there is more to inflate. Zeros after a member are padding.
  bool next_member() {
    while (between_members_ && input_.fill()) {
      const std::span<char> rest = input_.rest();
      const auto first = std::find_if(
          rest.begin(), rest.end(), [](char byte) { return byte != 0; });
      input_.use(static_cast<size_t>(first - rest.begin()));
      if (first != rest.end()) {
        inflateReset(&state_);
        between_members_ = false;
      }
    }
    return !between_members_;
  }

  size_t inflate_into(std::span<char> buffer) {
    if (!input_.fill()) {
      throw input_.truncated(Compression::gzip, name_);
    }
    const std::span<char> rest = input_.rest();
    state_.next_in = reinterpret_cast<Bytef*>(rest.data());
    state_.avail_in = static_cast<uInt>(rest.size());
    state_.next_out = reinterpret_cast<Bytef*>(buffer.data());
    state_.avail_out = static_cast<uInt>(buffer.size());
    const int result = inflate(&state_, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      throw damaged(
          name_,
          std::string("not a sound gzip file: ") +
              (state_.msg != nullptr ? state_.msg : "unknown error"));
    }
    between_members_ = result == Z_STREAM_END;
    input_.use(rest.size() - state_.avail_in);
    return buffer.size() - state_.avail_out;
  }

  Input input_;
  std::string name_;
  z_stream state_{};
  bool between_members_ = false; // an empty file is no gzip file
};

class ZstdStream : public ByteStream {
 public:
  ZstdStream(std::unique_ptr<ByteStream> compressed, std::string name)
      : input_(std::move(compressed)),
        name_(std::move(name)),
        context_(ZSTD_createDCtx()) {
    if (context_ == nullptr) {
      throw std::bad_alloc();
    }
    ZSTD_DCtx_setParameter(
        context_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }

  size_t read(std::span<char> buffer) override {
    for (;;) {
      // Output may be left inside even when all input is used.
      const bool more = input_.fill();
      if (!more && !full_) {
        if (inside_frame_) {
          throw input_.truncated(Compression::zstd, name_);
        }
        return 0;
      }
      const std::span<char> rest = input_.rest();
      ZSTD_inBuffer in{rest.data(), rest.size(), 0};
      ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
      const size_t result = ZSTD_decompressStream(context_.get(), &out, &in);
      if (ZSTD_isError(result) != 0) {
        throw damaged(
            name_,
            std::string("not a sound zstd file: ") + ZSTD_getErrorName(result));
      }
      input_.use(in.pos);
      inside_frame_ = result != 0;
      full_ = inside_frame_ && out.pos == out.size;
      if (out.pos > 0) {
        return out.pos;
      }
    }
  }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const {
      ZSTD_freeDCtx(context);
    }
  };

  Input input_;
  std::string name_;
  std::unique_ptr<ZSTD_DCtx, Free> context_;
  bool inside_frame_ = true; // an empty file is no zstd file
  bool full_ = false; // the last call filled its buffer
};

class XzStream : public ByteStream {
 public:
  XzStream(std::unique_ptr<ByteStream> compressed, std::string name)
      : input_(std::move(compressed)), name_(std::move(name)) {
    if (lzma_stream_decoder(&state_, kMaxXzMemory, LZMA_CONCATENATED) !=
        LZMA_OK) {
      throw std::bad_alloc();
    }
  }
  ~XzStream() override {
    lzma_end(&state_);
  }
  XzStream(const XzStream&) = delete;
  XzStream& operator=(const XzStream&) = delete;

  size_t read(std::span<char> buffer) override {
    state_.next_out = reinterpret_cast<uint8_t*>(buffer.data());
    state_.avail_out = buffer.size();
    while (!at_end_ && state_.avail_out == buffer.size()) {
      const bool more = input_.fill();
      const std::span<char> rest = input_.rest();
      state_.next_in = reinterpret_cast<const uint8_t*>(rest.data());
      state_.avail_in = rest.size();
      const lzma_ret result = lzma_code(&state_, more ? LZMA_RUN : LZMA_FINISH);
      input_.use(rest.size() - state_.avail_in);
      at_end_ = result == LZMA_STREAM_END;
      if (result == LZMA_BUF_ERROR && !more) {
        throw input_.truncated(Compression::xz, name_);
      }
      if (result != LZMA_OK && !at_end_ && result != LZMA_BUF_ERROR) {
        throw damaged(name_, "not a sound xz file: " + reason(result));
      }
    }
    return buffer.size() - state_.avail_out;
  }

 private:
  static std::string reason(lzma_ret result) {
    switch (result) {
      case LZMA_MEMLIMIT_ERROR:
        return "it needs more than 256 MiB of memory";
      case LZMA_FORMAT_ERROR:
        return "other bytes than xz";
      case LZMA_OPTIONS_ERROR:
        return "a kind of compression that is not supported";
      case LZMA_MEM_ERROR:
        throw std::bad_alloc();
      default:
        return "its data is corrupt";
    }
  }

  Input input_;
  std::string name_;
  lzma_stream state_ = LZMA_STREAM_INIT;
  bool at_end_ = false;
};

class Bzip2Stream : public ByteStream {
 public:
  Bzip2Stream(std::unique_ptr<ByteStream> compressed, std::string name)
      : input_(std::move(compressed)), name_(std::move(name)) {
    start();
  }
  ~Bzip2Stream() override {
    BZ2_bzDecompressEnd(&state_);
  }
  Bzip2Stream(const Bzip2Stream&) = delete;
  Bzip2Stream& operator=(const Bzip2Stream&) = delete;

  size_t read(std::span<char> buffer) override {
    state_.next_out = buffer.data();
    state_.avail_out = static_cast<unsigned>(buffer.size());
    while (state_.avail_out == buffer.size()) {
      const bool more = input_.fill();
      if (!more && between_streams_) {
        break;
      }
      if (more && between_streams_) {
        BZ2_bzDecompressEnd(&state_);
        start();
      }
      decode(more);
    }
    return buffer.size() - state_.avail_out;
  }

 private:
  void start() {
    char* next_out = state_.next_out;
    const unsigned avail_out = state_.avail_out;
    state_ = {};
    state_.next_out = next_out;
    state_.avail_out = avail_out;
    between_streams_ = false;
    if (BZ2_bzDecompressInit(&state_, /*verbosity=*/0, /*small=*/0) != BZ_OK) {
      throw std::bad_alloc();
    }
  }
  // Output may be left inside even when all input is used.
  void decode(bool more) {
    const std::span<char> rest = input_.rest();
    const unsigned room = state_.avail_out;
    state_.next_in = rest.data();
    state_.avail_in = static_cast<unsigned>(rest.size());
    const int result = BZ2_bzDecompress(&state_);
    input_.use(rest.size() - state_.avail_in);
    if (result == BZ_MEM_ERROR) {
      throw std::bad_alloc();
    }
    if (result != BZ_OK && result != BZ_STREAM_END) {
      throw damaged(name_, "not a sound bzip2 file: its data is corrupt");
    }
    between_streams_ = result == BZ_STREAM_END;
    if (!more && !between_streams_ && state_.avail_out == room) {
      throw input_.truncated(Compression::bzip2, name_);
    }
  }

  Input input_;
  std::string name_;
  bz_stream state_{};
  bool between_streams_ = false; // an empty file is no bzip2 file
};

} // namespace

Compression compression_of_bytes(std::string_view head) {
  using namespace std::string_view_literals;
  if (head.starts_with("\x1F\x8B"sv)) {
    return Compression::gzip;
  }
  // A frame, or one that a reader skips: RFC 8878, section 3.1.2.
  if (head.starts_with("\x28\xB5\x2F\xFD"sv) ||
      (head.size() >= 4 && (head[0] & 0xF0) == 0x50 &&
       head.substr(1).starts_with("\x2A\x4D\x18"sv))) {
    return Compression::zstd;
  }
  if (head.starts_with("\xFD\x37zXZ\0"sv)) {
    return Compression::xz;
  }
  // "BZh9" may begin a text: a block or the end of the stream follows.
  if (head.size() >= 10 && head.starts_with("BZh") && head[3] >= '1' &&
      head[3] <= '9' &&
      (head.substr(4).starts_with("\x31\x41\x59\x26\x53\x59"sv) ||
       head.substr(4).starts_with("\x17\x72\x45\x38\x50\x90"sv))) {
    return Compression::bzip2;
  }
  return Compression::none;
}

Compression compression_of(std::string_view name) {
  const Ending* ending = ending_of(name);
  return ending != nullptr ? ending->compression : Compression::none;
}

std::string name_of(Compression compression) {
  switch (compression) {
    case Compression::gzip:
      return "gzip";
    case Compression::zstd:
      return "zstd";
    case Compression::xz:
      return "xz";
    case Compression::bzip2:
      return "bzip2";
    case Compression::none:
      break;
  }
  return "";
}

std::string_view plain_name(std::string_view name) {
  const Ending* ending = ending_of(name);
  return ending != nullptr ? name.substr(0, name.size() - ending->text.size())
                           : name;
}

std::unique_ptr<ByteStream> decompress(
    Compression compression,
    std::unique_ptr<ByteStream> compressed,
    const std::string& name) {
  switch (compression) {
    case Compression::gzip:
      return std::make_unique<GzipStream>(std::move(compressed), name);
    case Compression::zstd:
      return std::make_unique<ZstdStream>(std::move(compressed), name);
    case Compression::xz:
      return std::make_unique<XzStream>(std::move(compressed), name);
    case Compression::bzip2:
      return std::make_unique<Bzip2Stream>(std::move(compressed), name);
    case Compression::none:
      break;
  }
  return compressed;
}

} // namespace deepspeed::text
