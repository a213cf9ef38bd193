// The texts of a file one after the other, whatever its format.
#include "deepspeed/text/record_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/text/json_line.h"
#include "deepspeed/text/source.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

constexpr size_t kBufferBytes = size_t{1} << 18;
constexpr size_t kMaxFields = 65'536; // of a record: an empty one has memory
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kWhite = " \t\r\n\v\f";

Error bad_record(
    const std::string& name,
    uint64_t line,
    const std::string& what,
    const std::string& hint) {
  return Error(ExitCode::data, what, name + ":" + std::to_string(line), hint);
}

Error too_long(const std::string& name, uint64_t line) {
  return bad_record(
      name,
      line,
      "it is longer than " + std::to_string(kMaxJsonLineBytes) + " bytes",
      "is a quotation mark or a bracket missing before its end?");
}

// The text in an object.
std::string_view text_of(
    std::string_view object,
    const std::string& column,
    const std::string& name,
    uint64_t line,
    std::string& text) {
  const JsonProblem problem = read_json_line(object, column, text);
  if (problem) {
    throw bad_record(name, line, problem.what, problem.hint);
  }
  return text;
}

// Lines without their ends, and of a line beyond `keep` bytes the front part.
class LineReader {
 public:
  LineReader(std::unique_ptr<ByteStream> stream, size_t keep, bool any_end)
      : stream_(std::move(stream)),
        keep_(keep),
        any_end_(any_end),
        buffer_(kBufferBytes) {}

  bool next(std::string_view& line) {
    carried_.clear();
    bool found = false;
    while (begin_ < end_ || fill()) {
      if (std::exchange(after_return_, false) && buffer_[begin_] == '\n') {
        ++begin_;
        continue;
      }
      found = true;
      const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
      const size_t n = end_of_line(rest);
      const bool ends = n < rest.size();
      begin_ += n + (ends ? 1 : 0);
      after_return_ = ends && any_end_ && rest[n] == '\r';
      if (ends && carried_.empty()) {
        line = rest.substr(0, n);
        break;
      }
      carried_.append(rest.data(), std::min(n, keep_ - carried_.size()));
      line = carried_;
      if (ends) {
        break;
      }
    }
    if (found && ++line_ == 1 && line.starts_with(kByteOrderMark)) {
      line.remove_prefix(kByteOrderMark.size());
    }
    return found;
  }
  uint64_t line() const {
    return line_;
  }

 private:
  bool fill() {
    begin_ = 0;
    end_ = stream_->read(buffer_);
    find_newline();
    return end_ > 0;
  }
  void find_newline() {
    const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
    newline_ = begin_ + std::min(rest.find('\n'), rest.size());
  }
  size_t end_of_line(std::string_view rest) {
    if (newline_ < begin_) {
      find_newline();
    }
    const size_t n = newline_ - begin_;
    return any_end_ ? std::min(rest.substr(0, n).find('\r'), n) : n;
  }

  std::unique_ptr<ByteStream> stream_;
  size_t keep_;
  bool any_end_; // "\r" alone ends a line, too
  std::vector<char> buffer_;
  size_t begin_ = 0; // of what was read and not used
  size_t end_ = 0;
  size_t newline_ = 0; // the next "\n", or end_: not found anew for each line
  bool after_return_ = false; // a "\n" now belongs to the "\r" before
  uint64_t line_ = 0;
  std::string carried_; // a line that spans buffers
};

class Lines : public RecordReader {
 public:
  explicit Lines(std::unique_ptr<ByteStream> stream)
      : lines_(std::move(stream), kMaxSampleBytes + 1, /*any_end=*/true) {}

  bool next(std::string_view& text) override {
    return lines_.next(text);
  }

 private:
  LineReader lines_;
};

class JsonLines : public RecordReader {
 public:
  JsonLines(
      std::unique_ptr<ByteStream> stream,
      std::string name,
      std::string column)
      : lines_(std::move(stream), kMaxJsonLineBytes + 1, /*any_end=*/false),
        name_(std::move(name)),
        column_(std::move(column)) {}

  bool next(std::string_view& text) override {
    std::string_view line;
    do {
      if (!lines_.next(line)) {
        return false;
      }
    } while (line.find_first_not_of(kWhite) == std::string_view::npos);
    if (line.size() > kMaxJsonLineBytes) {
      throw too_long(name_, lines_.line());
    }
    text = text_of(line, column_, name_, lines_.line(), text_);
    return true;
  }

 private:
  LineReader lines_;
  std::string name_;
  std::string column_;
  std::string text_;
};

// One byte after the other, and the number of the line they are on.
class Bytes {
 public:
  static constexpr int kEnd = -1;

  explicit Bytes(std::unique_ptr<ByteStream> stream)
      : stream_(std::move(stream)), buffer_(kBufferBytes) {
    for (const char c : kByteOrderMark) { // no format begins with a part of it
      if (peek() == static_cast<unsigned char>(c)) {
        get();
      }
    }
  }

  int peek() {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = stream_->read(buffer_);
    }
    return begin_ < end_ ? static_cast<unsigned char>(buffer_[begin_]) : kEnd;
  }
  int get() {
    const int c = peek();
    if (c != kEnd) {
      ++begin_;
      line_ += c == '\n' ? 1 : 0;
    }
    return c;
  }
  void skip_white() {
    while (peek() != kEnd &&
           kWhite.find(static_cast<char>(peek())) != std::string_view::npos) {
      get();
    }
  }
  uint64_t line() const {
    return line_;
  }

 private:
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t line_ = 1;
};

// [{...}, {...}]: cut into its elements, which are read like lines.
class JsonArray : public RecordReader {
 public:
  JsonArray(
      std::unique_ptr<ByteStream> stream,
      std::string name,
      std::string column)
      : bytes_(std::move(stream)),
        name_(std::move(name)),
        column_(std::move(column)) {}

  bool next(std::string_view& text) override {
    if (at_end_) {
      return false;
    }
    bytes_.skip_white();
    if (is_first_) {
      bytes_.get(); // "["
      bytes_.skip_white();
      if (bytes_.peek() == ']') {
        bytes_.get();
        finish();
        return false;
      }
      is_first_ = false;
    }
    const uint64_t line = bytes_.line();
    if (read_element(line) == ']') {
      finish();
    }
    text = text_of(element_, column_, name_, line, text_);
    return true;
  }

 private:
  // Returns the byte after the element: "," or "]".
  char read_element(uint64_t line) {
    element_.clear();
    int depth = 0;
    bool in_string = false;
    for (;;) {
      const int c = bytes_.get();
      if (c == Bytes::kEnd) {
        throw bad_record(
            name_,
            line,
            "the JSON array ends in the middle: truncated",
            "make or download this file again");
      }
      if (!in_string && depth == 0 && (c == ',' || c == ']')) {
        return static_cast<char>(c);
      }
      if (element_.size() == kMaxJsonLineBytes) {
        throw too_long(name_, line);
      }
      element_ += static_cast<char>(c);
      if (in_string && c == '\\' && bytes_.peek() != Bytes::kEnd) {
        element_ += static_cast<char>(bytes_.get());
      } else if (c == '"') {
        in_string = !in_string;
      } else if (!in_string) {
        depth += c == '{' || c == '[' ? 1 : 0;
        depth -= c == '}' || c == ']' ? 1 : 0;
      }
    }
  }
  void finish() {
    at_end_ = true;
    bytes_.skip_white();
    if (bytes_.peek() != Bytes::kEnd) {
      throw bad_record(
          name_,
          bytes_.line(),
          "there is more after the JSON array",
          "\"jq -c '.[]' FILE > FILE.jsonl\" writes several arrays as lines");
    }
  }

  Bytes bytes_;
  std::string name_;
  std::string column_;
  std::string element_;
  std::string text_;
  bool is_first_ = true;
  bool at_end_ = false;
};

// RFC 4180 with a header, and with any line ends. A quotation mark inside a
// field that does not begin with one is a character, as for Python's csv.
class Csv : public RecordReader {
 public:
  Csv(std::unique_ptr<ByteStream> stream,
      char separator,
      std::string name,
      std::string column)
      : bytes_(std::move(stream)),
        separator_(separator),
        name_(std::move(name)),
        column_(std::move(column)) {}

  bool next(std::string_view& text) override {
    if (columns_ == 0 && !read_header()) {
      return false;
    }
    if (!read_record()) {
      return false;
    }
    if (fields_.size() != columns_) {
      throw bad_record(
          name_,
          line_,
          "the record has " + std::to_string(fields_.size()) +
              " fields, the header " + std::to_string(columns_),
          "a field with separators or line ends stands in quotation marks");
    }
    text = fields_[at_];
    return true;
  }

 private:
  bool read_header() {
    if (!read_record()) {
      return false;
    }
    columns_ = fields_.size();
    const auto found = std::find(fields_.begin(), fields_.end(), column_);
    at_ = static_cast<size_t>(found - fields_.begin());
    std::string names;
    for (const std::string& field : fields_) {
      constexpr size_t kMostBytes = 200;
      if (names.size() + field.size() < kMostBytes) {
        names += (names.empty() ? "" : ", ") + field;
      }
    }
    if (found == fields_.end()) {
      throw bad_record(
          name_,
          line_,
          "no field \"" + column_ + "\" in the header",
          "it has the fields " + names + "; --text_column names one");
    }
    if (std::find(found + 1, fields_.end(), column_) != fields_.end()) {
      throw bad_record(
          name_,
          line_,
          "the field \"" + column_ + "\" is there twice",
          "each field needs a name of its own");
    }
    return true;
  }

  // The next record that is not an empty line.
  bool read_record() {
    while (bytes_.peek() == '\n' || bytes_.peek() == '\r') {
      bytes_.get();
    }
    line_ = bytes_.line();
    fields_.clear();
    size_ = 0;
    if (bytes_.peek() == Bytes::kEnd) {
      return false;
    }
    int end = separator_;
    while (end == separator_) {
      if (fields_.size() == kMaxFields) {
        throw bad_record(
            name_,
            line_,
            "the record has more than " + std::to_string(kMaxFields) +
                " fields",
            "is this a table?");
      }
      fields_.emplace_back();
      end = bytes_.peek() == '"' ? read_quoted(fields_.back())
                                 : read_plain(fields_.back());
    }
    if (end == '\r' && bytes_.peek() == '\n') {
      bytes_.get();
    }
    return true;
  }
  bool ends_field(int c) const {
    return c == separator_ || c == '\n' || c == '\r' || c == Bytes::kEnd;
  }
  void add(std::string& field, int c) {
    if (++size_ > kMaxJsonLineBytes) {
      throw too_long(name_, line_);
    }
    field += static_cast<char>(c);
  }
  // Both return the byte after the field.
  int read_plain(std::string& field) {
    int c = bytes_.get();
    for (; !ends_field(c); c = bytes_.get()) {
      add(field, c);
    }
    ++size_;
    return c;
  }
  int read_quoted(std::string& field) {
    bytes_.get();
    for (;;) {
      const int c = bytes_.get();
      if (c == Bytes::kEnd) {
        throw bad_record(
            name_,
            line_,
            "a quotation mark that is never closed",
            "in a field in quotation marks, one of its own is written twice");
      }
      if (c != '"') {
        add(field, c);
      } else if (bytes_.peek() == '"') {
        add(field, bytes_.get());
      } else {
        break;
      }
    }
    const int end = bytes_.get();
    if (!ends_field(end)) {
      throw bad_record(
          name_,
          line_,
          "text after the closing quotation mark of a field",
          "in a field in quotation marks, one of its own is written twice");
    }
    ++size_;
    return end;
  }

  Bytes bytes_;
  int separator_;
  std::string name_;
  std::string column_;
  std::vector<std::string> fields_; // of the record
  size_t size_ = 0; // of the record
  uint64_t line_ = 1; // where it begins
  size_t columns_ = 0; // 0 before the header
  size_t at_ = 0; // of the column
};

} // namespace

std::unique_ptr<RecordReader> open_records(
    std::unique_ptr<ByteStream> stream,
    TextFormat format,
    const std::string& name,
    const std::string& text_column) {
  switch (format) {
    case TextFormat::json_lines:
      return std::make_unique<JsonLines>(std::move(stream), name, text_column);
    case TextFormat::json_array:
      return std::make_unique<JsonArray>(std::move(stream), name, text_column);
    case TextFormat::csv:
      return std::make_unique<Csv>(std::move(stream), ',', name, text_column);
    case TextFormat::tsv:
      return std::make_unique<Csv>(std::move(stream), '\t', name, text_column);
    case TextFormat::lines:
      break;
  }
  return std::make_unique<Lines>(std::move(stream));
}

} // namespace deepspeed::text
