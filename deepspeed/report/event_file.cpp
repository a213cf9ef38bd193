// TensorBoard event files.
#include "deepspeed/report/event_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "deepspeed/base/crc32c.h"
#include "deepspeed/base/error.h"
#include "deepspeed/file/file_system.h"
#include "deepspeed/machine/system_info.h"

namespace deepspeed::report {
namespace {

// Protocol buffers: a field starts with its number << 3 | wire type, where the
// types are 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}

template <typename Integer>
void put_little_endian(std::string& out, Integer value) {
  for (size_t i = 0; i < sizeof(value); ++i) {
    out += static_cast<char>(value >> (8 * i));
  }
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

// An Event with wall_time = 1 set.
std::string start_event() {
  const double now = std::chrono::duration<double>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  std::string event;
  put_varint(event, 1 << 3 | 1);
  put_little_endian(event, std::bit_cast<uint64_t>(now));
  return event;
}

// Tells readers to drop what older files of the folder hold of `step` and
// later ones: Event.step, and Event.session_log with SessionLog.status START.
std::string restart_event(int64_t step) {
  std::string event = start_event();
  put_varint(event, 2 << 3);
  put_varint(event, static_cast<uint64_t>(step));
  std::string session_log;
  put_varint(session_log, 1 << 3);
  put_varint(session_log, 1);
  put_bytes(event, 7, session_log);
  return event;
}

// u64 length, its masked checksum, the data, their masked checksum.
void put_record(std::string& out, std::string_view data) {
  std::string length;
  put_little_endian<uint64_t>(length, data.size());
  out += length;
  put_little_endian(out, base::masked_crc32c(length));
  out += data;
  put_little_endian(out, base::masked_crc32c(data));
}

constexpr std::string_view kPrefix = "events.out.tfevents.";

bool holds_events(const std::string& folder) {
  std::error_code error; // one that cannot be listed holds none
  for (std::filesystem::directory_iterator item(folder, error), end;
       !error && item != end;
       item.increment(error)) {
    if (item->path().filename().string().starts_with(kPrefix)) {
      return true;
    }
  }
  return false;
}

std::string event_name(int attempt) {
  std::array<char, 32> time{};
  std::snprintf(
      time.data(),
      time.size(),
      "%010lld",
      static_cast<long long>(std::time(nullptr)));
  return std::string(kPrefix) + time.data() + "." + machine::host_name() + "." +
      std::to_string(::getpid()) + "." + std::to_string(attempt);
}

} // namespace

EventFile::EventFile(const std::string& folder) {
  struct stat info {};
  if (file::file_system().make_folder(folder) != 0 && errno != EEXIST) {
    throw base::system_error(
        base::ExitCode::cannot_create, "cannot make the folder", folder, errno);
  }
  if (::lstat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    throw base::Error(
        base::ExitCode::cannot_create,
        "not a folder, or a symbolic link, which is not written through",
        folder,
        "move it away");
  }
  has_older_ = holds_events(folder);
  file::Descriptor made;
  std::string path;
  for (int attempt = 0; !made.is_open(); ++attempt) {
    path = folder + "/" + event_name(attempt);
    made = file::Descriptor(
        file::file_system().open(path, O_WRONLY | O_CREAT | O_EXCL));
    if (!made.is_open() && errno != EEXIST) {
      throw base::system_error(
          base::ExitCode::cannot_create, "cannot make", path, errno);
    }
  }
  file_ = {path, std::move(made)};
  std::string event = start_event();
  put_bytes(event, 3, "brain.Event:2"); // Event.file_version
  put_record(buffer_, event);
  flush();
}

EventFile::~EventFile() {
  flush();
}

void EventFile::start_after(int64_t step) {
  if (step > 0 || has_older_) {
    put_record(buffer_, restart_event(step + 1));
    flush();
  }
}

void EventFile::add_scalar(std::string_view tag, double value, int64_t step) {
  std::string scalar; // Summary.Value
  put_bytes(scalar, 1, tag);
  put_varint(scalar, 2 << 3 | 5); // simple_value
  put_little_endian(scalar, std::bit_cast<uint32_t>(static_cast<float>(value)));
  std::string summary;
  put_bytes(summary, 1, scalar); // Summary.value
  std::string event = start_event();
  put_varint(event, 2 << 3); // Event.step
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary); // Event.summary
  put_record(buffer_, event);
}

void EventFile::flush() {
  file_.append(buffer_);
  buffer_.clear();
}

} // namespace deepspeed::report
