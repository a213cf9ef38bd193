// Output of all ranks to the launcher's own streams, in whole lines.
#pragma once

#include <poll.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/launcher/pipe.h"

namespace deepspeed::launcher {

// The last lines of one rank, for the report when it fails.
class LineTail {
 public:
  static constexpr size_t kLines = 20;
  static constexpr size_t kLineBytes = 2000; // longer lines are cut

  // Lines in a block of text; its last line may lack the line end.
  void add(std::string_view text);
  const std::deque<std::string>& lines() const {
    return lines_;
  }
  // All bytes that were read of its streams, whole lines or not: a sign of
  // life.
  uint64_t bytes_read = 0;

 private:
  std::deque<std::string> lines_;
};

// Reads what ranks write and passes it on. Nothing ever stands between the
// parts of a line; a line of more than kMaxLine bytes is broken. What cannot be
// written because nobody reads waits in a bounded queue, and the ranks wait
// with it; a stream whose reader is gone is dropped, since a log is not worth a
// run. One thread.
class OutputRelay {
 public:
  static constexpr size_t kMaxLine = 1 << 20; // bytes
  static constexpr size_t kMaxQueue = 1 << 20; // bytes, before ranks wait

  // What stands behind this in a line is a message of the launcher on another
  // host. A greeting of its shell may stand in front.
  static constexpr std::string_view kMark =
      "\x1e"
      "deepspeed-agent:";
  // Gets such a message without the mark and the line end.
  using OnMarked = std::function<void(std::string_view)>;

  // Takes over the reading end of a pipe (or the master of a pseudo-terminal).
  // Its lines go to the descriptor `sink` (1 or 2) and to `tail`; marked lines
  // only to `on_marked`, if there is one.
  void add_pipe(
      file::Descriptor reader,
      int sink,
      std::shared_ptr<LineTail> tail,
      OnMarked on_marked = nullptr);
  // Unfinished lines are shown at once, and shown again below lines of others:
  // a progress line stays the last line. At most one.
  void add_terminal(
      file::Descriptor master,
      int sink,
      std::shared_ptr<LineTail> tail);

  // The launcher's own lines, to standard error.
  void write_line(std::string_view text);
  // A marked line, to standard output.
  void write_marked(std::string_view message);

  // Reads and writes what is ready; returns when something was, when one of
  // `others` is (their revents are set), or after `timeout`; < 0 = no timeout.
  void wait(std::span<pollfd> others, std::chrono::milliseconds timeout);

  // Reads what the ranks have left behind, after they have ended.
  void drain();
  // Whether everything that was read has been written.
  bool flushed() const {
    return queue_.empty();
  }
  // So much waits to be written that nothing is read.
  bool full() const {
    return queued_bytes_ >= kMaxQueue;
  }
  void terminal_resized();

 private:
  struct Stream {
    file::Descriptor fd;
    int sink;
    std::shared_ptr<LineTail> tail;
    bool terminal;
    OnMarked on_marked = nullptr;
    std::string partial = {}; // a line without its end
  };
  struct Segment {
    int sink;
    std::string text;
    size_t written = 0;
  };

  bool read_from(Stream& stream);
  void accept(Stream& stream, std::string_view bytes);
  static std::string take_marked(const Stream& stream, std::string_view lines);
  void show(Stream& stream, std::string_view bytes);
  void finish(Stream& stream);
  void emit(int sink, std::string_view lines);
  void enqueue(int sink, std::string_view text);
  void write_queue();
  int writer(int sink);

  std::vector<std::unique_ptr<Stream>> streams_;
  std::deque<Segment> queue_;
  size_t queued_bytes_ = 0;
  std::vector<int> closed_sinks_;
  std::map<int, file::Descriptor> terminals_; // sinks that are, opened again
  Stream* terminal_ = nullptr;
};

} // namespace deepspeed::launcher
