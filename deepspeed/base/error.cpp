// Errors a user can act on: what happened, where, and what to do about it.
#include "deepspeed/base/error.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>
#include <system_error>

#include "deepspeed/base/log.h"
#include "deepspeed/base/process.h"

namespace deepspeed::base {

Error::Error(
    ExitCode code,
    std::string what,
    std::string where,
    std::string hint)
    : std::runtime_error(std::move(what)),
      code_(code),
      where_(std::move(where)),
      hint_(std::move(hint)) {}

std::string Error::report() const {
  std::string text = std::string("error: ") + what() + "\n";
  if (!where_.empty()) {
    text += "  " + where_ + "\n";
  }
  if (!hint_.empty()) {
    text += "  hint: " + hint_ + "\n";
  }
  return text;
}

Error system_error(
    ExitCode code,
    std::string_view action,
    std::string_view path,
    int saved_errno) {
  std::string hint;
  if (saved_errno == ENOSPC || saved_errno == EDQUOT || saved_errno == EFBIG) {
    hint = "free some space there, or choose another folder";
  } else if (saved_errno == EACCES || saved_errno == EROFS) {
    hint = "check the permissions of the folder, or choose another one";
  } else if (saved_errno == ENOMEM) {
    hint = "lift the limit on memory (ulimit -v), or end other programs";
  }
  return Error(
      code,
      std::string(action) + ": " + std::strerror(saved_errno),
      std::string(path),
      hint);
}

namespace {

int report_no_memory() {
  write_line(
      "error: out of memory\n  hint: use a smaller --batch_size, "
      "--max_seq_length or model, or lift the limit (ulimit -v)\n");
  return static_cast<int>(ExitCode::internal);
}

// libtorch throws its own exceptions; their texts tell.
bool is_no_memory(std::string_view what) {
  return what.find("can't allocate memory") != std::string_view::npos ||
      what.find("not enough memory") != std::string_view::npos ||
      what.find("std::bad_alloc") != std::string_view::npos;
}

int report_internal(const std::string& what) {
  if (is_no_memory(what)) {
    return report_no_memory();
  }
  // libtorch appends its C++ trace to the message: the first line is enough.
  const std::string first_line = what.substr(0, what.find('\n'));
  write_line(
      "error: " + first_line +
      "\n  this is a fault of the program\n"
      "  hint: run it again with DS_DEBUG=1 for a trace\n");
  return static_cast<int>(ExitCode::internal);
}

// A thread that cannot be started, mostly.
int report_system(const std::system_error& error) {
  if (error.code() == std::errc::not_enough_memory) {
    return report_no_memory();
  }
  if (error.code() != std::errc::resource_unavailable_try_again) {
    return report_internal(error.what());
  }
  write_line(
      std::string("error: no more threads can be started: ") + error.what() +
      "\n  hint: lift the limits on processes and memory (ulimit -u, ulimit "
      "-v, pids.max of a container), or use fewer --num_threads\n");
  return static_cast<int>(ExitCode::internal);
}

} // namespace

int run_program(const std::function<int()>& program) {
  const char* debug = std::getenv("DS_DEBUG");
  if (debug != nullptr && std::string_view(debug) == "1") {
    prepare_process();
    return program();
  }
  try {
    prepare_process();
    return program();
  } catch (const Error& error) {
    write_line(error.report());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    return report_no_memory();
  } catch (const std::system_error& error) {
    return report_system(error);
  } catch (const std::exception& error) {
    return report_internal(error.what());
  }
}

std::string nearest_name(
    std::string_view name,
    const std::vector<std::string>& candidates) {
  // Levenshtein distance, one row at a time.
  auto distance = [&](std::string_view other) {
    std::vector<size_t> row(other.size() + 1);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= other.size(); ++j) {
        const size_t substituted =
            diagonal + (name[i - 1] == other[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    return row[other.size()];
  };
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t edits = distance(candidate);
    if (edits < best_distance) {
      best_distance = edits;
      best = candidate;
    }
  }
  return best;
}

} // namespace deepspeed::base
