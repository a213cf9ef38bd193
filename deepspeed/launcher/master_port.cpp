// The port at which rank 0 waits for the others.
#include "deepspeed/launcher/master_port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {

namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ExitCode;

// The inodes of sockets that listen at `port`, from /proc/net/tcp and tcp6:
// "sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode".
std::vector<std::string> listening_inodes(int port) {
  std::vector<std::string> inodes;
  for (const char* path : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line); // headings
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string slot, local, remote, state, skipped, inode;
      fields >> slot >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) {
        fields >> skipped;
      }
      fields >> inode;
      const size_t colon = local.find(':');
      constexpr const char* kListen = "0A";
      if (colon != std::string::npos && state == kListen &&
          std::strtol(local.c_str() + colon + 1, nullptr, 16) == port) {
        inodes.push_back(inode);
      }
    }
  }
  return inodes;
}

bool has_socket(const fs::path& process, const std::string& inode) {
  std::error_code ignored;
  for (fs::directory_iterator fd(process / "fd", ignored), end; fd != end;
       fd.increment(ignored)) {
    if (fs::read_symlink(fd->path(), ignored) == "socket:[" + inode + "]") {
      return true;
    }
  }
  return false;
}

// Its words, cut at a length that a message can bear.
std::string command_of(const fs::path& process) {
  std::ifstream file(process / "cmdline", std::ios::binary);
  std::ostringstream text; // an iterator would throw when the process goes
  text << file.rdbuf();
  std::string words = text.str();
  while (words.ends_with('\0')) {
    words.pop_back();
  }
  for (char& c : words) {
    if (static_cast<unsigned char>(c) < ' ') {
      c = ' ';
    }
  }
  constexpr size_t kMost = 120;
  return words.size() > kMost ? words.substr(0, kMost) + "..." : words;
}

} // namespace

std::string port_owner(int port) {
  const std::vector<std::string> inodes = listening_inodes(port);
  std::error_code ignored;
  for (fs::directory_iterator process("/proc", ignored), end; process != end;
       process.increment(ignored)) {
    const std::string pid = process->path().filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    for (const std::string& inode : inodes) {
      if (has_socket(process->path(), inode)) {
        return "pid " + pid + " (" + command_of(process->path()) + ")";
      }
    }
  }
  return "";
}

ReservedPort reserve_port(const std::string& address, int port) {
  file::Descriptor socket(
      ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
  const int yes = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(port));
  ::inet_pton(AF_INET, address.c_str(), &name.sin_addr);
  socklen_t size = sizeof name;
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&name), size) != 0) {
    const int saved_errno = errno;
    const std::string owner = saved_errno == EADDRINUSE ? port_owner(port) : "";
    throw Error(
        ExitCode::unavailable,
        "port " + std::to_string(port) + " of " + address +
            (saved_errno == EADDRINUSE
                 ? " is in use"
                 : std::string(": ") + std::strerror(saved_errno)) +
            (owner.empty() ? "" : " by " + owner),
        "--master_port " + std::to_string(port),
        "wait for its end, or take another --master_port; on one host leave it "
        "out, and a free port is chosen");
  }
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size);
  return {std::move(socket), ntohs(name.sin_port)};
}

} // namespace deepspeed::launcher
