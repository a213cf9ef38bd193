// A NodeJob on its way to another host.
#include "deepspeed/launcher/node_message.h"

#include <charconv>

#include "deepspeed/base/error.h"
#include "deepspeed/base/version.h"

namespace deepspeed::launcher {

namespace {

[[noreturn]] void fail(const std::string& what) {
  throw base::Error(
      base::ExitCode::data,
      "the message from the first launcher " + what,
      "",
      "install the same version of deepspeed on all hosts");
}

// One function visits all fields in order, so that both directions agree.
class Writer {
 public:
  void text(const std::string& value) {
    bytes_ += value;
    bytes_ += '\0';
  }
  template <typename Integer>
  void number(const Integer& value) {
    text(std::to_string(static_cast<long>(value)));
  }
  void seconds(const std::chrono::duration<double>& value) {
    number(
        std::chrono::duration_cast<std::chrono::microseconds>(value).count());
  }
  template <typename T, typename Visit>
  void list(const std::vector<T>& items, Visit visit) {
    number(items.size());
    for (const T& item : items) {
      visit(*this, item);
    }
  }
  std::string take() {
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}

  void text(std::string& value) {
    const size_t end = left_.find('\0');
    if (end == std::string_view::npos) {
      fail("ends too soon");
    }
    value = left_.substr(0, end);
    left_.remove_prefix(end + 1);
  }
  template <typename Integer>
  void number(Integer& value) {
    std::string digits;
    text(digits);
    long parsed = 0;
    const char* end = digits.data() + digits.size();
    const auto result = std::from_chars(digits.data(), end, parsed);
    if (result.ec != std::errc() || result.ptr != end) {
      fail("has '" + digits.substr(0, 40) + "' for a number");
    }
    value = static_cast<Integer>(parsed);
  }
  void seconds(std::chrono::duration<double>& value) {
    long microseconds = 0;
    number(microseconds);
    value = std::chrono::microseconds(microseconds);
  }
  template <typename T, typename Visit>
  void list(std::vector<T>& items, Visit visit) {
    long count = 0;
    number(count);
    // Each item takes a byte at least.
    if (count < 0 || static_cast<size_t>(count) > left_.size()) {
      fail("has a list of " + std::to_string(count) + " items");
    }
    items.resize(static_cast<size_t>(count));
    for (T& item : items) {
      visit(*this, item);
    }
  }
  bool at_end() const {
    return left_.empty();
  }

 private:
  std::string_view left_;
};

// Message is NodeMessage or const NodeMessage.
template <typename Archive, typename Message>
void visit(Archive& archive, Message& message) {
  const auto text = [](auto& a, auto& value) { a.text(value); };
  const auto number = [](auto& a, auto& value) { a.number(value); };
  auto& job = message.job;
  archive.text(message.folder);
  archive.list(job.nodes, [&](auto& a, auto& node) {
    a.text(node.host);
    a.list(node.slots, number);
  });
  archive.number(job.node_rank);
  archive.text(job.master_addr);
  archive.number(job.master_port);
  archive.text(job.program.script);
  archive.list(job.program.arguments, text);
  archive.number(job.program.module);
  archive.number(job.program.no_python);
  archive.number(job.program.local_rank);
  archive.list(job.environment, text);
  archive.list(job.devices, text);
  archive.number(job.bind_cores);
  archive.text(job.bind_core_list);
  archive.text(job.rank_log_folder);
  archive.number(job.log_level);
  archive.seconds(job.supervisor.failure_grace);
  archive.seconds(job.supervisor.stop_grace);
  archive.number(job.restart_count);
  archive.text(job.resume_note);
  archive.text(job.job_id);
}

} // namespace

std::string encode_message(const NodeMessage& message) {
  Writer writer;
  writer.text(base::kVersion);
  visit(writer, message);
  const std::string bytes = writer.take();
  return std::to_string(bytes.size()) + "\n" + bytes;
}

NodeMessage decode_message(std::string_view bytes) {
  Reader reader(bytes);
  std::string version;
  reader.text(version);
  if (version != base::kVersion) {
    fail(
        "is of version " + version.substr(0, 40) + ", this is " +
        base::kVersion);
  }
  NodeMessage message;
  visit(reader, message);
  const NodeJob& job = message.job;
  if (!reader.at_end() || job.node_rank < 0 ||
      static_cast<size_t>(job.node_rank) >= job.nodes.size() ||
      job.nodes[static_cast<size_t>(job.node_rank)].slots.empty()) {
    fail("does not make sense");
  }
  return message;
}

} // namespace deepspeed::launcher
