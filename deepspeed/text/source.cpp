// Text samples from files: a line, a JSON object, or a record of CSV is one.
#include "deepspeed/text/source.h"

#include <algorithm>
#include <map>

#include "deepspeed/text/record_reader.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

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

} // namespace

std::string files_text(const Source& source) {
  std::map<std::string, size_t> counts;
  for (const SourceFile& file : source.files) {
    ++counts[name_of(file.format.text)];
  }
  std::string text;
  for (const auto& [format, count] : counts) {
    text += (text.empty() ? "" : ", ") + std::to_string(count) +
        (count == 1 ? " file of " : " files of ") + format;
  }
  return text;
}

bool has_columns(const Source& source) {
  return std::any_of(
      source.files.begin(), source.files.end(), [](const SourceFile& file) {
        return has_columns(file.format.text);
      });
}

SampleReader::SampleReader(
    const SourceFile& file,
    const std::string& text_column)
    : SampleReader(
          open_file(file.path, file.stamp, &bytes_read_),
          file.format,
          file.path,
          text_column) {}

SampleReader::SampleReader(
    std::unique_ptr<ByteStream> stream,
    const FileFormat& format,
    const std::string& name,
    const std::string& text_column)
    : records_(open_records(
          decompress(format.compression, std::move(stream), name),
          format.text,
          name,
          text_column)) {}

SampleReader::~SampleReader() = default;

bool SampleReader::next(std::string_view& text) {
  while (records_->next(text)) {
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

} // namespace deepspeed::text
