// The launcher on another host, started by the first one over ssh.
#include "deepspeed/launcher/node_agent.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/launcher/child_process.h"
#include "deepspeed/launcher/host_address.h"
#include "deepspeed/launcher/machine.h"
#include "deepspeed/launcher/node_message.h"
#include "deepspeed/launcher/output_relay.h"
#include "deepspeed/launcher/signal_source.h"

namespace deepspeed::launcher {

namespace {

using base::Error;
using base::ExitCode;

// A marked line, which nothing can divide.
void tell(const std::string& message) {
  const std::string line = std::string(OutputRelay::kMark) + message + "\n";
  [[maybe_unused]] const ssize_t n =
      ::write(STDOUT_FILENO, line.data(), line.size());
}

// False at the end of standard input, or after a silence of kSilenceLimit.
bool read_exactly(char* data, size_t size) {
  while (size > 0) {
    constexpr int kLimit = 1000 * static_cast<int>(kSilenceLimit.count());
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, kLimit) == 0) {
      return false;
    }
    const ssize_t n = ::read(STDIN_FILENO, data, size);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return false;
    }
    data += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

// Nothing if the first launcher has gone away, for example because another
// host did not answer.
std::optional<NodeMessage> read_message() {
  constexpr size_t kMost = 64 << 20;
  std::string digits;
  char c = '\0';
  for (;;) {
    if (!read_exactly(&c, 1)) {
      return std::nullopt;
    }
    if (c == command_letter(kAlive) && digits.empty()) {
      continue; // it waits for other hosts
    }
    if (c == '\n') {
      break;
    }
    digits += c;
    if (c < '0' || c > '9' || digits.size() > 9) {
      throw Error(
          ExitCode::usage,
          std::string(kAgentFlag) + " is for the launcher itself",
          "",
          "see deepspeed --help");
    }
  }
  const size_t size = std::strtoul(digits.c_str(), nullptr, 10);
  if (size > kMost) {
    throw Error(
        ExitCode::data,
        "a message of " + digits + " bytes from the first launcher",
        "",
        "shorten the arguments or the environment");
  }
  std::string bytes(size, '\0');
  if (!read_exactly(bytes.data(), size)) {
    return std::nullopt;
  }
  return decode_message(bytes);
}

int run_message(NodeMessage message, SignalSource& signals) {
  if (::chdir(message.folder.c_str()) != 0) {
    throw base::system_error(
        ExitCode::no_input, "cannot enter the folder", message.folder, errno);
  }
  std::vector<std::string> environment = own_environment();
  for (const std::string& entry : message.job.environment) {
    const size_t equals = entry.find('=');
    set_variable(
        environment, entry.substr(0, equals), entry.substr(equals + 1));
  }
  message.job.environment = std::move(environment);
  // PATH counts for the search of the program, too.
  if (const char* path = find_variable(message.job.environment, "PATH")) {
    ::setenv("PATH", path, 1);
  }
  OutputRelay relay;
  message.job.tell_home = [&relay](const std::string& text) {
    relay.write_marked(text);
  };
  return run_node(message.job, this_machine(), relay, signals);
}

} // namespace

int run_node_agent() {
  SignalSource signals;
  const char* ssh = std::getenv("SSH_CONNECTION");
  tell(kReadyMessage + to_text(this_host_address(ssh == nullptr ? "" : ssh)));
  std::optional<NodeMessage> message = read_message();
  if (!message) {
    return static_cast<int>(ExitCode::unavailable);
  }
  file::Descriptor commands(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
  file::Descriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ::dup2(nothing.get(), STDIN_FILENO);
  signals.listen_to(std::move(commands));
  const std::string host =
      message->job.nodes[static_cast<size_t>(message->job.node_rank)].host;
  try {
    return run_message(std::move(*message), signals);
  } catch (const Error& error) {
    tell(kReportedMessage); // by what is thrown here
    throw Error(
        error.code(),
        error.what(),
        "host " + host + (error.where().empty() ? "" : ": " + error.where()),
        error.hint());
  }
}

} // namespace deepspeed::launcher
