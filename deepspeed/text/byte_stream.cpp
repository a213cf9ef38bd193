// Bytes of a text file, plain or compressed, in bounded memory.
#include "deepspeed/text/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

constexpr size_t kInputBytes = size_t{1} << 18;
constexpr int kMaxZstdWindowLog = 27;

Error damaged(const std::string& name, const std::string& what) {
  return Error(ExitCode::data, what, name, "make or download this file again");
}

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

FileStamp checked_stamp(const std::string& path, const struct stat& info) {
  if (!S_ISREG(info.st_mode)) {
    throw Error(
        ExitCode::no_input,
        S_ISDIR(info.st_mode)
            ? "a folder, not a file"
            : "a pipe or a device, not a file that can be read again",
        path,
        S_ISDIR(info.st_mode) ? "" : "write the text to a file first");
  }
  return {
      static_cast<uint64_t>(info.st_size),
      static_cast<uint64_t>(info.st_ino),
      nanoseconds(info.st_mtim),
      nanoseconds(info.st_ctim)};
}

class FileStream : public ByteStream {
 public:
  FileStream(
      const std::string& path,
      const FileStamp& stamp,
      uint64_t* bytes_read)
      : path_(path), stamp_(stamp), bytes_read_(bytes_read) {
    // Without O_NONBLOCK, a pipe put here meanwhile would block.
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0) {
      throw base::system_error(ExitCode::no_input, "cannot read", path, errno);
    }
    try {
      check_unchanged();
    } catch (...) {
      ::close(fd_);
      throw;
    }
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~FileStream() override {
    ::close(fd_);
  }
  FileStream(const FileStream&) = delete;
  FileStream& operator=(const FileStream&) = delete;

  size_t read(std::span<char> buffer) override {
    ssize_t n = 0;
    do {
      n = ::read(fd_, buffer.data(), buffer.size());
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
      throw base::system_error(ExitCode::no_input, "cannot read", path_, errno);
    }
    if (n == 0) {
      check_unchanged();
    }
    if (bytes_read_ != nullptr) {
      *bytes_read_ += static_cast<uint64_t>(n);
    }
    return static_cast<size_t>(n);
  }

 private:
  void check_unchanged() const {
    struct stat info {};
    if (::fstat(fd_, &info) != 0) {
      throw base::system_error(ExitCode::no_input, "cannot read", path_, errno);
    }
    if (checked_stamp(path_, info) != stamp_) {
      throw Error(
          ExitCode::data,
          "the file was changed while it was read",
          path_,
          "start again when no program writes to it");
    }
  }

  std::string path_;
  FileStamp stamp_;
  uint64_t* bytes_read_;
  int fd_ = -1;
};

class MemoryStream : public ByteStream {
 public:
  explicit MemoryStream(std::string_view text) : text_(text) {}

  size_t read(std::span<char> buffer) override {
    const size_t n = std::min(buffer.size(), text_.size());
    std::copy_n(text_.begin(), n, buffer.begin());
    text_.remove_prefix(n);
    return n;
  }

 private:
  std::string_view text_;
};

// The compressed side of a decompressor: a window of bytes not yet used.
class Input {
 public:
  explicit Input(std::unique_ptr<ByteStream> stream)
      : stream_(std::move(stream)), buffer_(kInputBytes) {}

  // Reads on if all is used. False at the end of the file.
  bool fill() {
    if (rest_.empty()) {
      rest_ = std::span(buffer_).first(stream_->read(buffer_));
    }
    return !rest_.empty();
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
      throw damaged(name_, "the gzip file is truncated");
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
          throw damaged(name_, "the zstd file is truncated");
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

} // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    throw base::system_error(ExitCode::no_input, "cannot read", path, errno);
  }
  const FileStamp stamp = checked_stamp(path, info);
  if (::access(path.c_str(), R_OK) != 0) {
    throw base::system_error(ExitCode::no_input, "cannot read", path, errno);
  }
  return stamp;
}

std::unique_ptr<ByteStream> open_file(
    const std::string& path,
    const FileStamp& stamp,
    uint64_t* bytes_read) {
  return std::make_unique<FileStream>(path, stamp, bytes_read);
}

std::unique_ptr<ByteStream> open_memory(std::string_view text) {
  return std::make_unique<MemoryStream>(text);
}

Compression compression_of(std::string_view name) {
  if (name.ends_with(".gz")) {
    return Compression::gzip;
  }
  return name.ends_with(".zst") ? Compression::zstd : Compression::none;
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
    case Compression::none:
      break;
  }
  return compressed;
}

} // namespace deepspeed::text
