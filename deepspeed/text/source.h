// Text samples from files: one line, or one JSON object, is one sample.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/text/byte_stream.h"

namespace deepspeed::text {

// The model sees at most 510 tokens of a sample; the longest token of
// roberta-base has 128 bytes. So a sample is cut here, at a character boundary,
// and nothing that the model could see is lost.
constexpr size_t kMaxSampleBytes = size_t{1} << 20;
// A JSON object cannot be cut: a longer line is an error.
constexpr size_t kMaxJsonLineBytes = size_t{16} << 20;

// One file of a source.
struct SourceFile {
  std::string path; // as it is opened
  std::string name; // relative to the source: the same after a move
  FileStamp stamp;
};

// The files of a source, sorted by name. A file is taken whatever its ending; a
// folder is searched recursively for .txt and .jsonl files (also .gz and .zst),
// hidden ones left out. Throws Error(no_input) for a path that is missing,
// unreadable, a pipe or a device, or a folder without any such file.
std::vector<SourceFile> list_sources(const std::string& path);

// What was special about the lines of a file.
struct SourceCounts {
  uint64_t samples = 0;
  uint64_t cut = 0; // longer than kMaxSampleBytes
  uint64_t invalid_utf8 = 0; // the tokenizer puts U+FFFD there
};

// Reads the samples of one file. Text: a line without its "\n" or "\r\n". JSON
// lines (*.jsonl): the string `text_column` of each object. Samples of white
// space only are dropped, as HelloDeepSpeed's data set does; a byte order mark
// at the start of the file too. NUL bytes are data. Not thread-safe.
class SampleReader {
 public:
  SampleReader(const SourceFile& file, std::string text_column);
  // From a stream; the format follows from the ending of `name`.
  SampleReader(
      std::unique_ptr<ByteStream> stream,
      std::string name,
      std::string text_column);
  ~SampleReader();

  // False at the end. `text` is valid until the next call. Throws Error(data)
  // with "FILE:LINE" for a line that is not an object with that string.
  bool next(std::string_view& text);

  const SourceCounts& counts() const {
    return counts_;
  }
  // Bytes taken from disk so far.
  uint64_t bytes_read() const {
    return bytes_read_;
  }

 private:
  bool next_line(std::string_view& line);
  bool fill();
  std::string_view text_of(std::string_view line);

  uint64_t bytes_read_ = 0;
  std::unique_ptr<ByteStream> stream_;
  std::string name_;
  std::string text_column_;
  bool is_json_;
  std::vector<char> buffer_;
  size_t begin_ = 0; // of what was read and not used
  size_t end_ = 0;
  uint64_t line_ = 0;
  std::string carried_; // a line that spans buffers
  std::string json_text_;
  SourceCounts counts_;
};

} // namespace deepspeed::text
