// Text samples from files: a line, a JSON object, or a record of CSV is one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/text/byte_stream.h"
#include "deepspeed/text/text_format.h"

namespace deepspeed::text {

// The model sees at most 510 tokens of a sample; the longest token of
// roberta-base has 128 bytes. So a sample is cut here, at a character boundary,
// and nothing that the model could see is lost.
constexpr size_t kMaxSampleBytes = size_t{1} << 20;
// A JSON object or a record of CSV cannot be cut: a longer one is an error.
constexpr size_t kMaxJsonLineBytes = size_t{16} << 20;

// One file of a source.
struct SourceFile {
  std::string path; // as it is opened
  std::string name; // relative to the source: the same after a move
  FileStamp stamp;
  FileFormat format;
};

// A file or folder below a source that gives no samples, and why.
struct LeftOut {
  std::string name;
  std::string reason;
};

// Text that belongs together.
struct Source {
  std::string path; // for messages
  std::vector<SourceFile> files; // sorted by name
};

// "3 files of JSON lines", "2 files of lines, 1 file of CSV", ...
std::string files_text(const Source& source);

// Whether --text_column makes a difference for it.
bool has_columns(const Source& source);

// What was special about the lines of a file.
struct SourceCounts {
  uint64_t samples = 0;
  uint64_t cut = 0; // longer than kMaxSampleBytes
  uint64_t invalid_utf8 = 0; // the tokenizer puts U+FFFD there
};

// One text after the other, as they are in the file.
class RecordReader;

// Reads the samples of one file. Text: a line; it ends at "\n", "\r\n" or "\r",
// as in Python's text mode. JSON: the string `text_column` of each object, with
// lines that end at "\n". CSV: that field of each record. Samples of white
// space only are dropped, as HelloDeepSpeed's data set does; a byte order mark
// at the start of the file too. NUL bytes are data. Not thread-safe.
class SampleReader {
 public:
  SampleReader(const SourceFile& file, const std::string& text_column);
  // From a stream of a file called `name`.
  SampleReader(
      std::unique_ptr<ByteStream> stream,
      const FileFormat& format,
      const std::string& name,
      const std::string& text_column);
  ~SampleReader();

  // False at the end. `text` is valid until the next call. Throws Error(data)
  // with "FILE:LINE" for what is not an object or record with that field.
  bool next(std::string_view& text);

  const SourceCounts& counts() const {
    return counts_;
  }
  // Bytes taken from disk so far.
  uint64_t bytes_read() const {
    return bytes_read_;
  }

 private:
  uint64_t bytes_read_ = 0;
  std::unique_ptr<RecordReader> records_;
  SourceCounts counts_;
};

} // namespace deepspeed::text
