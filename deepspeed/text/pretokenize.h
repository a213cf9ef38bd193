// Splitting text into the words that byte-level BPE encodes one by one.
#pragma once

#include <cstddef>
#include <string_view>

namespace deepspeed::text {

// The length in bytes of the first word of `text`: what GPT-2's expression
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// matches at its start (encoder.py of openai/gpt-2; the classes are those of
// class_of()). Every character belongs to some word, so the result is at least
// 1. Linear time over a whole text. REQUIRES: `text` is not empty, valid UTF-8.
size_t first_pretoken(std::string_view text);

} // namespace deepspeed::text
