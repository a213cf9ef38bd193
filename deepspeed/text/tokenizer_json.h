// A strict JSON reader for files with a vocabulary of many thousand entries.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace deepspeed::text {

// Walks through a JSON document, one value after the other. base::parse_json
// builds a tree, which takes too long for a vocabulary; this copies nothing
// but strings with escapes. Every fault is an Error(data) with SOURCE:LINE.
// The views it returns live as long as the reader and the document.
// Not thread-safe.
class JsonReader {
 public:
  JsonReader(std::string_view document, std::string source);

  // True if the next character is `c`, which is then passed.
  bool accept(char c);
  void expect(char c);
  // A string, without its escapes.
  std::string_view string();
  // An integer from 0 to 2^31 - 1.
  int32_t integer();
  // Passes any value and returns its text, for base::parse_json to check.
  std::string_view skip();
  // Fails unless nothing but white space is left.
  void finish();

  // Calls entry(key) for each member of an object; it has to pass the value.
  template <class Entry>
  void object(Entry entry) {
    expect('{');
    if (accept('}')) {
      return;
    }
    do {
      const std::string_view key = string();
      expect(':');
      entry(key);
    } while (accept(','));
    expect('}');
  }

  // Calls item() for each value of an array; it has to pass the value.
  template <class Item>
  void array(Item item) {
    expect('[');
    if (accept(']')) {
      return;
    }
    do {
      item();
    } while (accept(','));
    expect(']');
  }

  // Error(data) at the place that was reached.
  [[noreturn]] void fail(const std::string& what) const;

  const std::string& source() const {
    return source_;
  }

 private:
  void skip_space();
  std::string unescaped(std::string_view raw) const;
  uint32_t hex4(std::string_view raw, size_t at) const;

  std::string_view document_;
  std::string source_;
  size_t at_ = 0;
  std::deque<std::string> unescaped_;
};

} // namespace deepspeed::text
