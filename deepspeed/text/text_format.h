// What a file of text is, by its content and its name together.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "deepspeed/text/compression.h"

namespace deepspeed::text {

enum class TextFormat {
  lines, // a line is a sample
  json_lines, // an object in each line
  json_array, // one array of objects
  csv, // RFC 4180 with a header
  tsv, // the same with tabs
};

struct FileFormat {
  Compression compression = Compression::none;
  TextFormat text = TextFormat::lines;
};

// "lines", "JSON lines", ...
std::string name_of(TextFormat format);

// Whether samples come out of one field of many.
inline bool has_columns(TextFormat format) {
  return format != TextFormat::lines;
}

// By the name alone, without the ending of a compression: .json, .jsonl,
// .ndjson and .jsonlines are json_lines, .csv and .tsv themselves, all others
// lines.
TextFormat format_of_name(std::string_view name);

// The format of a file that `open` gives from its beginning, as often as it is
// called. Compression is known by the first bytes; the rest by the name, which
// the content must not contradict. Throws Error(data) for what is not read
// (UTF-16, archives, Parquet, other binary data), with the command that
// converts it, and for JSON objects, or an array of them, under a name of
// something else.
FileFormat detect_format(
    const std::function<std::unique_ptr<ByteStream>()>& open,
    const std::string& name);

} // namespace deepspeed::text
