// Lines of text to lines of token ids, and back: the program `tokenize`.
#include "deepspeed/text/tokenizer_lines.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "deepspeed/base/error.h"

namespace deepspeed::text {
namespace {

using base::Error;
using base::ExitCode;

constexpr size_t kBlock = 1 << 18;

size_t read_some(int fd, char* data, size_t size) {
  while (true) {
    const ssize_t n = ::read(fd, data, size);
    if (n >= 0) {
      return static_cast<size_t>(n);
    }
    if (errno != EINTR) {
      throw base::system_error(
          ExitCode::no_input, "cannot read", "standard input", errno);
    }
  }
}

// Writes and empties `text`. False if nobody reads it any more.
bool write_all(int fd, std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EPIPE) {
      return false;
    }
    if (n < 0 && errno != EINTR) {
      throw base::system_error(
          ExitCode::io, "cannot write", "standard output", errno);
    }
    done += n > 0 ? static_cast<size_t>(n) : 0;
  }
  text.clear();
  return true;
}

// Calls convert(sample, result) for each sample of `in` and writes the results.
// What is left of a block after its last whole sample starts the next one.
template <class Convert>
bool convert_samples(int in, int out, char end, Convert convert) {
  std::string text;
  std::string result;
  while (true) {
    const size_t searched = text.size();
    text.resize(searched + kBlock);
    const size_t n = read_some(in, text.data() + searched, kBlock);
    text.resize(searched + n);
    if (n == 0) {
      break;
    }
    size_t begin = 0;
    size_t stop = text.find(end, searched);
    for (; stop != std::string::npos; stop = text.find(end, begin)) {
      convert(std::string_view(text).substr(begin, stop - begin), result);
      begin = stop + 1;
      if (result.size() >= kBlock && !write_all(out, result)) {
        return false;
      }
    }
    text.erase(0, begin);
    // A person who types a line wants to see its answer.
    if (!write_all(out, result)) {
      return false;
    }
  }
  if (!text.empty()) {
    convert(text, result);
  }
  return write_all(out, result);
}

void parse_ids(std::string_view line, std::vector<int32_t>& ids) {
  ids.clear();
  const char* end = line.data() + line.size();
  for (const char* p = line.data(); p != end;) {
    if (*p == ' ') {
      ++p;
      continue;
    }
    int32_t id = 0;
    const auto [stop, failure] = std::from_chars(p, end, id);
    if (failure != std::errc() || (stop != end && *stop != ' ')) {
      const std::string_view rest(p, static_cast<size_t>(end - p));
      throw Error(
          ExitCode::data,
          "not a token id: \"" + std::string(rest.substr(0, 20)) + "\"",
          "standard input",
          "a line must hold numbers with blanks between them");
    }
    ids.push_back(id);
    p = stop;
  }
}

void append_number(int32_t number, std::string& text) {
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
  text.append(digits, end);
}

} // namespace

bool tokenize_lines(
    const std::shared_ptr<const Tokenizer>& tokenizer,
    const LineOptions& options,
    int in,
    int out) {
  Encoder encoder(tokenizer);
  std::vector<int32_t> ids;
  return convert_samples(
      in,
      out,
      options.end_of_text,
      [&](std::string_view sample, std::string& result) {
        ids.assign(1, tokenizer->special().bos);
        encoder.encode(sample, ids);
        ids.push_back(tokenizer->special().eos);
        for (const int32_t id : ids) {
          append_number(id, result);
          result += ' ';
        }
        result.back() = '\n';
      });
}

bool detokenize_lines(
    const Tokenizer& tokenizer,
    const LineOptions& options,
    int in,
    int out) {
  const SpecialTokens& special = tokenizer.special();
  std::vector<int32_t> ids;
  return convert_samples(
      in, out, '\n', [&](std::string_view line, std::string& result) {
        parse_ids(line, ids);
        std::span<const int32_t> rest = ids;
        if (rest.size() >= 2 && rest.front() == special.bos &&
            rest.back() == special.eos) {
          rest = rest.subspan(1, rest.size() - 2);
        }
        result += tokenizer.decode(rest, options.skip_special_tokens);
        result += options.end_of_text;
      });
}

} // namespace deepspeed::text
