// Output of all ranks to the launcher's own streams, in whole lines.
#include "deepspeed/launcher/output_relay.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace deepspeed::launcher {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kEraseLine = "\r\x1b[K";

// So many bytes can be written to `fd` without waiting once poll() says that it
// is writable: a pipe promises one page, a file takes all.
size_t safe_write_size(int fd) {
  struct stat info {};
  const bool file = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  return file ? size_t{1} << 20 : 4096;
}

} // namespace

void LineTail::add(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines_.emplace_back(text.substr(0, std::min(end, kLineBytes)));
    if (lines_.size() > kLines) {
      lines_.pop_front();
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void OutputRelay::add_pipe(
    file::Descriptor reader,
    int sink,
    std::shared_ptr<LineTail> tail,
    OnMarked on_marked) {
  streams_.push_back(std::make_unique<Stream>(Stream{
      std::move(reader), sink, std::move(tail), false, std::move(on_marked)}));
}

void OutputRelay::add_terminal(
    file::Descriptor master,
    int sink,
    std::shared_ptr<LineTail> tail) {
  streams_.push_back(std::make_unique<Stream>(
      Stream{std::move(master), sink, std::move(tail), true}));
  terminal_ = streams_.back().get();
}

void OutputRelay::write_line(std::string_view text) {
  std::string line(text);
  if (!line.ends_with('\n')) {
    line += '\n';
  }
  emit(STDERR_FILENO, line);
}

void OutputRelay::write_marked(std::string_view message) {
  emit(STDOUT_FILENO, std::string(kMark) + std::string(message) + "\n");
}

void OutputRelay::wait(
    std::span<pollfd> others,
    std::chrono::milliseconds timeout) {
  std::vector<pollfd> fds(others.begin(), others.end());
  for (const auto& stream : streams_) {
    const short events = full() ? 0 : POLLIN;
    fds.push_back({full() ? -1 : stream->fd.get(), events, 0});
  }
  if (!queue_.empty()) {
    fds.push_back({queue_.front().sink, POLLOUT, 0});
  }
  const int wait_ms =
      timeout.count() < 0 ? -1 : static_cast<int>(timeout.count());
  if (::poll(fds.data(), fds.size(), wait_ms) <= 0) {
    for (pollfd& other : others) {
      other.revents = 0;
    }
    return;
  }
  std::copy_n(fds.begin(), others.size(), others.begin());
  if (!queue_.empty() && fds.back().revents != 0) {
    write_queue();
  }
  for (size_t i = streams_.size(); i-- > 0;) {
    if (fds[others.size() + i].revents != 0 && !read_from(*streams_[i])) {
      finish(*streams_[i]);
      streams_.erase(streams_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

void OutputRelay::drain() {
  // A process that a rank has left behind may go on writing for ever.
  const auto deadline = Clock::now() + std::chrono::seconds(2);
  for (const auto& stream : streams_) {
    pollfd ready{stream->fd.get(), POLLIN, 0};
    while (Clock::now() < deadline && ::poll(&ready, 1, 0) > 0 &&
           read_from(*stream)) {
    }
    finish(*stream);
  }
  streams_.clear();
}

void OutputRelay::terminal_resized() {
  if (terminal_ != nullptr) {
    copy_terminal_size(terminal_->sink, terminal_->fd.get());
  }
}

// False at the end of the stream.
bool OutputRelay::read_from(Stream& stream) {
  std::array<char, 1 << 16> buffer;
  const ssize_t n = ::read(stream.fd.get(), buffer.data(), buffer.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    return true;
  }
  if (n <= 0) { // a terminal ends with EIO
    return false;
  }
  const std::string_view bytes(buffer.data(), static_cast<size_t>(n));
  stream.tail->bytes_read += bytes.size();
  if (stream.terminal) {
    show(stream, bytes);
  } else {
    accept(stream, bytes);
  }
  return true;
}

void OutputRelay::accept(Stream& stream, std::string_view bytes) {
  const size_t last_end = bytes.rfind('\n');
  if (last_end != std::string_view::npos) {
    stream.partial += bytes.substr(0, last_end + 1);
    if (stream.on_marked && stream.partial.find(kMark) != std::string::npos) {
      stream.partial = take_marked(stream, stream.partial);
    }
    if (!stream.partial.empty()) {
      stream.tail->add(stream.partial);
      emit(stream.sink, stream.partial);
      stream.partial.clear();
    }
    bytes.remove_prefix(last_end + 1);
  }
  stream.partial += bytes;
  if (stream.partial.size() >= kMaxLine) {
    finish(stream);
  }
}

// Hands the messages over; returns the other text.
std::string OutputRelay::take_marked(
    const Stream& stream,
    std::string_view lines) {
  std::string others;
  while (!lines.empty()) {
    const size_t end = lines.find('\n');
    const std::string_view line = lines.substr(0, end);
    const size_t mark = line.find(kMark);
    if (mark != std::string_view::npos) {
      stream.on_marked(line.substr(mark + kMark.size()));
    }
    if (mark != 0) {
      others += line.substr(0, mark);
      others += '\n';
    }
    lines.remove_prefix(end + 1);
  }
  return others;
}

void OutputRelay::show(Stream& stream, std::string_view bytes) {
  enqueue(stream.sink, bytes);
  stream.partial += bytes;
  const size_t last_end = stream.partial.rfind('\n');
  if (last_end != std::string::npos) {
    stream.tail->add(std::string_view(stream.partial).substr(0, last_end + 1));
    stream.partial.erase(0, last_end + 1);
  }
  // Of a line that was overwritten the last state counts.
  if (stream.partial.size() > 1) {
    const size_t restart =
        stream.partial.rfind('\r', stream.partial.size() - 2);
    if (restart != std::string::npos) {
      stream.partial.erase(0, restart);
    }
  }
  if (stream.partial.size() > 4096) {
    stream.partial.clear(); // not a line that is worth showing again
  }
}

// The end of a stream, or of a line that is too long.
void OutputRelay::finish(Stream& stream) {
  if (stream.terminal) {
    terminal_ = nullptr;
    if (!stream.partial.empty()) {
      enqueue(stream.sink, "\n");
    }
  }
  if (stream.partial.empty()) {
    return;
  }
  stream.tail->add(stream.partial);
  if (!stream.terminal) {
    emit(stream.sink, stream.partial + "\n");
  }
  stream.partial.clear();
}

void OutputRelay::emit(int sink, std::string_view lines) {
  const bool redraw = terminal_ != nullptr && !terminal_->partial.empty() &&
      ::isatty(sink) == 1;
  if (!redraw) {
    enqueue(sink, lines);
    return;
  }
  enqueue(terminal_->sink, kEraseLine);
  enqueue(sink, lines);
  enqueue(terminal_->sink, terminal_->partial);
}

void OutputRelay::enqueue(int sink, std::string_view text) {
  if (std::count(closed_sinks_.begin(), closed_sinks_.end(), sink) > 0) {
    return;
  }
  queued_bytes_ += text.size();
  if (!queue_.empty() && queue_.back().sink == sink &&
      queue_.back().text.size() < 1 << 16) {
    queue_.back().text += text;
  } else {
    queue_.push_back({sink, std::string(text)});
  }
}

// A terminal that has room for one byte counts as writable, and a longer write
// would wait until somebody looks at it: other hosts would take us for lost.
// Its descriptor is shared with the shell, so it is opened again to be made
// non-blocking.
int OutputRelay::writer(int sink) {
  if (::isatty(sink) != 1) {
    return sink;
  }
  auto [entry, is_new] = terminals_.try_emplace(sink);
  if (is_new) {
    const std::string path = "/proc/self/fd/" + std::to_string(sink);
    entry->second = file::Descriptor(
        ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  }
  return entry->second.is_open() ? entry->second.get() : sink;
}

// Writes to the first stream in the queue, which poll() found writable. One
// queue for both, since both may be the same pipe.
void OutputRelay::write_queue() {
  Segment& front = queue_.front();
  const size_t left = front.text.size() - front.written;
  const ssize_t n = ::write(
      writer(front.sink),
      front.text.data() + front.written,
      std::min(left, safe_write_size(front.sink)));
  if (n < 0 && errno != EAGAIN && errno != EINTR) {
    // Nobody reads any more.
    const int sink = front.sink;
    closed_sinks_.push_back(sink);
    std::erase_if(
        queue_, [=](const Segment& segment) { return segment.sink == sink; });
    queued_bytes_ = 0;
    for (const Segment& segment : queue_) {
      queued_bytes_ += segment.text.size() - segment.written;
    }
    return;
  }
  if (n > 0) {
    front.written += static_cast<size_t>(n);
    queued_bytes_ -= static_cast<size_t>(n);
  }
  if (front.written == front.text.size()) {
    queue_.pop_front();
  }
}

} // namespace deepspeed::launcher
