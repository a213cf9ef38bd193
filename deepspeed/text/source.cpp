// Text samples from files: one line, or one JSON object, is one sample.
#include "deepspeed/text/source.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/text/json_line.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

constexpr size_t kBufferBytes = size_t{1} << 18;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// `name` without the ending of its compression.
std::string_view plain_name(std::string_view name) {
  switch (compression_of(name)) {
    case Compression::gzip:
      return name.substr(0, name.size() - 3);
    case Compression::zstd:
      return name.substr(0, name.size() - 4);
    case Compression::none:
      break;
  }
  return name;
}

bool is_json_lines(std::string_view name) {
  return plain_name(name).ends_with(".jsonl");
}

bool is_supported(std::string_view name) {
  return is_json_lines(name) || plain_name(name).ends_with(".txt");
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
}

// The longest front part of `text` within the limit that ends with a character.
std::string_view cut(std::string_view text) {
  size_t end = kMaxSampleBytes;
  const auto continues = [&](size_t i) {
    return (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
  };
  while (end > kMaxSampleBytes - 3 && continues(end)) {
    --end;
  }
  return text.substr(0, continues(end) ? kMaxSampleBytes : end);
}

std::vector<SourceFile> files_of_folder(const std::string& path) {
  std::vector<SourceFile> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(path, error);
  for (; !error && entry != fs::recursive_directory_iterator();
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".")) {
      entry.disable_recursion_pending();
    } else if (is_supported(name) && !entry->is_directory()) {
      const std::string file = entry->path().string();
      files.push_back(
          {file,
           entry->path().lexically_relative(path).string(),
           stamp_of(file)});
    }
  }
  if (error) {
    throw Error(
        ExitCode::no_input, "cannot read folder: " + error.message(), path, "");
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
  return files;
}

} // namespace

std::vector<SourceFile> list_sources(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    return {{path, fs::path(path).filename().string(), stamp_of(path)}};
  }
  std::vector<SourceFile> files = files_of_folder(path);
  if (files.empty()) {
    throw Error(
        ExitCode::no_input,
        "no text in this folder",
        path,
        "it needs files that end in .txt or .jsonl, or these with .gz or .zst");
  }
  return files;
}

SampleReader::SampleReader(const SourceFile& file, std::string text_column)
    : SampleReader(
          open_file(file.path, file.stamp, &bytes_read_),
          file.path,
          std::move(text_column)) {}

SampleReader::SampleReader(
    std::unique_ptr<ByteStream> stream,
    std::string name,
    std::string text_column)
    : stream_(decompress(compression_of(name), std::move(stream), name)),
      name_(std::move(name)),
      text_column_(std::move(text_column)),
      is_json_(is_json_lines(name_)),
      buffer_(kBufferBytes) {}

SampleReader::~SampleReader() = default;

bool SampleReader::fill() {
  begin_ = 0;
  end_ = stream_->read(buffer_);
  return end_ > 0;
}

// The next line without its "\n". Of a line beyond the limit of its format, two
// bytes more than the limit: enough for a "\r", and to tell.
bool SampleReader::next_line(std::string_view& line) {
  const size_t keep = (is_json_ ? kMaxJsonLineBytes : kMaxSampleBytes) + 2;
  carried_.clear();
  bool found = false;
  while (begin_ < end_ || fill()) {
    found = true;
    const char* start = buffer_.data() + begin_;
    const void* newline = std::memchr(start, '\n', end_ - begin_);
    const size_t n = newline != nullptr
        ? static_cast<size_t>(static_cast<const char*>(newline) - start)
        : end_ - begin_;
    begin_ += n;
    if (newline != nullptr && carried_.empty()) {
      ++begin_;
      line = {start, n};
      break;
    }
    carried_.append(start, std::min(n, keep - carried_.size()));
    line = carried_;
    if (newline != nullptr) {
      ++begin_;
      break;
    }
  }
  ++line_;
  return found;
}

bool SampleReader::next(std::string_view& text) {
  std::string_view line;
  while (next_line(line)) {
    if (line_ == 1 && line.starts_with(kByteOrderMark)) {
      line.remove_prefix(kByteOrderMark.size());
    }
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    if (is_blank(line)) {
      continue;
    }
    text = is_json_ ? text_of(line) : line;
    if (is_blank(text)) {
      continue;
    }
    if (text.size() > kMaxSampleBytes) {
      text = cut(text);
      ++counts_.cut;
    }
    counts_.invalid_utf8 += is_valid_utf8(text) ? 0 : 1;
    ++counts_.samples;
    return true;
  }
  return false;
}

// The text in a line of JSON.
std::string_view SampleReader::text_of(std::string_view line) {
  const std::string where = name_ + ":" + std::to_string(line_);
  if (line.size() > kMaxJsonLineBytes) {
    throw Error(
        ExitCode::data,
        "the line is longer than " + std::to_string(kMaxJsonLineBytes) +
            " bytes",
        where,
        "");
  }
  const JsonProblem problem = read_json_line(line, text_column_, json_text_);
  if (problem) {
    throw Error(ExitCode::data, problem.what, where, problem.hint);
  }
  return json_text_;
}

} // namespace deepspeed::text
