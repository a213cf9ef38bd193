// Lines of text to lines of token ids, and back: the program `tokenize`.
#pragma once

#include "deepspeed/text/tokenizer.h"

namespace deepspeed::text {

struct LineOptions {
  char end_of_text = '\n'; // of a sample of text; a line of ids ends in '\n'
  bool skip_special_tokens = false; // leave <mask> and the like out of the text
};

// Reads samples of text from the file descriptor `in`, writes one line for each
// to `out`: <s>, the ids of the sample, </s>, with blanks between them. The
// last sample may lack its end. Error(no_input), Error(io) with errno's text.
// Returns false if the reader of `out` has gone away (EPIPE).
bool tokenize_lines(
    const std::shared_ptr<const Tokenizer>& tokenizer,
    const LineOptions& options,
    int in,
    int out);

// The other direction: <s> and </s> around a line are taken away, then it is
// decoded. Error(data) for what is not a line of ids of this tokenizer.
bool detokenize_lines(
    const Tokenizer& tokenizer,
    const LineOptions& options,
    int in,
    int out);

} // namespace deepspeed::text
