// What a file of text is, by its content and its name together.
#include "deepspeed/text/text_format.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "deepspeed/base/error.h"
#include "deepspeed/text/json_line.h"
#include "deepspeed/text/source.h"
#include "deepspeed/text/unicode.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;
using namespace std::string_view_literals;

constexpr size_t kHeadBytes = size_t{1} << 16;
constexpr size_t kJsonLinesLookedAt = 3;

// A kind of file that people have text in and that is not read here.
struct Refused {
  std::string_view magic;
  size_t at;
  std::string_view what;
  std::string_view convert;
};

constexpr std::string_view kFromPandas =
    "python3 -c \"import pandas; pandas.read_parquet('FILE').to_json("
    "'FILE.jsonl', orient='records', lines=True)\"";
constexpr std::string_view kFromArrow =
    "python3 -c \"import datasets; datasets.Dataset.from_file('FILE').to_json("
    "'FILE.jsonl')\"";

constexpr std::array<Refused, 20> kRefused{{
    // UTF-32 first: its mark begins with that of UTF-16.
    {"\xFF\xFE\0\0"sv, 0, "UTF-32", "iconv -f UTF-32 -t UTF-8 FILE > FILE.txt"},
    {"\0\0\xFE\xFF"sv, 0, "UTF-32", "iconv -f UTF-32 -t UTF-8 FILE > FILE.txt"},
    {"\xFF\xFE"sv, 0, "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE > FILE.txt"},
    {"\xFE\xFF"sv, 0, "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE > FILE.txt"},
    {"PK\x03\x04"sv, 0, "a zip archive", "unzip -p FILE > FILE.txt"},
    {"PK\x05\x06"sv, 0, "an empty zip archive", ""},
    {"7z\xBC\xAF\x27\x1C"sv, 0, "a 7z archive", "7z x -so FILE > FILE.txt"},
    {"Rar!\x1A\x07"sv, 0, "a rar archive", "unrar p -inul FILE > FILE.txt"},
    {"\x04\x22\x4D\x18"sv, 0, "an lz4 file", "lz4 -dc FILE > FILE.txt"},
    {"LZIP"sv, 0, "an lzip file", "lzip -dc FILE > FILE.txt"},
    {"\x1F\x9D"sv, 0, "a file of compress", "gzip -dc FILE > FILE.txt"},
    {"ustar"sv, 257, "a tar archive", "tar -xOf FILE > FILE.txt"},
    {"PAR1"sv, 0, "a Parquet file", kFromPandas},
    {"ARROW1\0\0"sv, 0, "an Arrow file", kFromArrow},
    {"\xFF\xFF\xFF\xFF"sv, 0, "an Arrow stream", kFromArrow},
    {"%PDF-"sv, 0, "a PDF", "pdftotext FILE FILE.txt"},
    {"\x1F\x8B"sv, 0, "compressed twice", "unpack it once: zcat FILE"},
    {"\x28\xB5\x2F\xFD"sv, 0, "compressed twice", "unpack it once: zstd -dc"},
    {"\xFD\x37zXZ\0"sv, 0, "compressed twice", "unpack it once: xz -dc FILE"},
    {"SQLite format 3\0"sv, 0, "a database of SQLite", ""},
}};

void refuse_known(std::string_view head, const std::string& name) {
  for (const Refused& kind : kRefused) {
    if (head.size() >= kind.at &&
        head.substr(kind.at).starts_with(kind.magic)) {
      throw Error(
          ExitCode::data,
          "this is " + std::string(kind.what) + ", not UTF-8 text",
          name,
          kind.convert.empty() ? "give text, one sample a line"
                               : std::string(kind.convert));
    }
  }
}

// Many zero bytes are UTF-16 without a mark; many control characters or
// sequences that are no UTF-8 are binary, or an encoding of which nothing would
// be left. Some of them are no reason: real texts have some.
void refuse_binary(std::string_view head, const std::string& name) {
  constexpr size_t kTooShortToTell = 64;
  if (head.size() < kTooShortToTell) {
    return;
  }
  size_t zeros = 0;
  size_t odd = 0;
  for (const char c : head) {
    zeros += c == 0 ? 1 : 0;
    const bool white = (c >= '\a' && c <= '\r') || c == '\x1B';
    odd += (c >= 0 && c < ' ' && !white) || c == '\x7F' ? 1 : 0;
  }
  const std::string sound = replace_invalid_utf8(head);
  for (size_t i = sound.find("\xEF\xBF\xBD"); i != std::string::npos;
       i = sound.find("\xEF\xBF\xBD", i + 3)) {
    ++odd;
  }
  if (zeros * 10 > head.size() || odd * 10 > head.size() * 3) {
    throw Error(
        ExitCode::data,
        "this is not UTF-8 text, but binary data or another encoding",
        name,
        "\"file FILE\" says what it may be; iconv -f ENCODING -t UTF-8 FILE > "
        "FILE.txt converts");
  }
}

// The first lines of a file, and whether they are all of it.
struct Head {
  std::string text;
  bool is_whole = false;
};

void read_up_to(size_t bytes, ByteStream& stream, Head& head) {
  while (head.text.size() < bytes && !head.is_whole) {
    const size_t before = head.text.size();
    head.text.resize(bytes);
    const size_t n =
        stream.read(std::span(head.text).subspan(before, bytes - before));
    head.text.resize(before + n);
    head.is_whole = n == 0;
  }
}

size_t first_of_text(std::string_view text) {
  const size_t mark = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  return text.find_first_not_of(" \t\r\n\v\f", mark);
}

// Whether the first lines are JSON objects with something in them. A line that
// does not end within the head is read on, as far as a line may be long.
bool is_json_by_content(ByteStream& stream, Head& head) {
  const size_t first = first_of_text(head.text);
  if (first == std::string::npos || head.text[first] != '{') {
    return false;
  }
  if (head.text.find('\n', first) == std::string::npos) {
    read_up_to(kMaxJsonLineBytes, stream, head);
  }
  std::string_view rest = std::string_view(head.text).substr(first);
  size_t objects = 0;
  while (!rest.empty() && objects < kJsonLinesLookedAt) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos && !head.is_whole) {
      break;
    }
    const std::string_view line = rest.substr(0, end);
    if (line.find_first_not_of(" \t\r\v\f") != std::string_view::npos) {
      if (!is_json_object(line) || line.find('"') == std::string_view::npos) {
        return false;
      }
      ++objects;
    }
    rest.remove_prefix(line.size() + (end == std::string_view::npos ? 0 : 1));
  }
  return objects > 0;
}

// After the object that `text` begins with; npos: it does not end there.
size_t end_of_object(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string && c == '\\') {
      ++i;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      depth += c == '{' || c == '[' ? 1 : 0;
      depth -= c == '}' || c == ']' ? 1 : 0;
      if (depth == 0) {
        return i + 1;
      }
    }
  }
  return std::string_view::npos;
}

// Whether an array begins whose first element is an object with something in
// it, over however many lines.
bool is_json_array_by_content(ByteStream& stream, Head& head) {
  const size_t bracket = first_of_text(head.text);
  if (bracket == std::string::npos || head.text[bracket] != '[') {
    return false;
  }
  const size_t begin = head.text.find_first_not_of(" \t\r\n", bracket + 1);
  if (begin == std::string::npos || head.text[begin] != '{') {
    return false;
  }
  const auto first_object = [&] {
    const std::string_view rest = std::string_view(head.text).substr(begin);
    const size_t end = end_of_object(rest);
    return end == std::string_view::npos ? "" : rest.substr(0, end);
  };
  if (first_object().empty()) {
    read_up_to(kMaxJsonLineBytes, stream, head);
  }
  const std::string_view object = first_object();
  return object.find('"') != std::string_view::npos && is_json_object(object);
}

} // namespace

std::string name_of(TextFormat format) {
  switch (format) {
    case TextFormat::lines:
      return "lines";
    case TextFormat::json_lines:
      return "JSON lines";
    case TextFormat::json_array:
      return "JSON array";
    case TextFormat::csv:
      return "CSV";
    case TextFormat::tsv:
      return "TSV";
  }
  return "";
}

TextFormat format_of_name(std::string_view name) {
  std::string text(plain_name(name));
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  for (const char* ending : {".json", ".jsonl", ".ndjson", ".jsonlines"}) {
    if (text.ends_with(ending)) {
      return TextFormat::json_lines;
    }
  }
  if (text.ends_with(".csv")) {
    return TextFormat::csv;
  }
  return text.ends_with(".tsv") ? TextFormat::tsv : TextFormat::lines;
}

FileFormat detect_format(
    const std::function<std::unique_ptr<ByteStream>()>& open,
    const std::string& name) {
  Head raw;
  read_up_to(kMagicBytes, *open(), raw);
  FileFormat format{compression_of_bytes(raw.text), format_of_name(name)};
  const Compression named = compression_of(name);
  if (format.compression == Compression::none && named != Compression::none) {
    throw Error(
        ExitCode::data,
        raw.text.empty() ? "an empty file: truncated"
                         : "its name is that of a " + name_of(named) +
                "-compressed file, its content is not",
        name,
        "make or download this file again, or rename it");
  }
  const std::unique_ptr<ByteStream> stream =
      decompress(format.compression, open(), name);
  Head head;
  read_up_to(kHeadBytes, *stream, head);
  refuse_known(head.text, name);
  refuse_binary(head.text, name);
  if (format.text == TextFormat::json_lines) {
    const size_t first = first_of_text(head.text);
    if (first != std::string::npos && head.text[first] == '[') {
      format.text = TextFormat::json_array;
    }
  } else if (is_json_array_by_content(*stream, head)) {
    throw Error(
        ExitCode::data,
        "this is a JSON array of objects in a file whose name says " +
            name_of(format.text),
        name,
        "rename it to end in .json, to train on the field that --text_column "
        "names; to train on the JSON itself: jq -Rc '{text: .}' FILE > "
        "FILE.jsonl");
  } else if (is_json_by_content(*stream, head)) {
    throw Error(
        ExitCode::data,
        "these are JSON objects in a file whose name says " +
            name_of(format.text),
        name,
        "rename it to end in .jsonl, to train on the field that --text_column "
        "names; to train on the JSON itself: jq -Rc '{text: .}' FILE > "
        "FILE.jsonl");
  }
  return format;
}

} // namespace deepspeed::text
