// What goes between the first launcher and the one on another host.
#pragma once

#include <string>
#include <string_view>

#include "deepspeed/launcher/node_job.h"

namespace deepspeed::launcher {

// Messages of an agent to the first launcher: marked lines (OutputRelay::kMark)
// on its standard output.
inline constexpr const char* kReadyMessage = "ready "; // then a HostAddress
inline constexpr const char* kAliveMessage = "alive"; // every kBeat
inline constexpr const char* kResumeMessage = "resume "; // then the note
inline constexpr const char* kReportedMessage = "reported"; // its failure

// What the first launcher sends to the one on another host, over the standard
// input of ssh, where nobody sees it in a list of processes.
struct NodeMessage {
  NodeJob job; // its environment: only what is added on the other host
  std::string folder; // the current folder there
};

// "LENGTH\n", then LENGTH bytes: all fields as strings that end with NUL, lists
// with their number of items in front. No field can hold a NUL.
std::string encode_message(const NodeMessage& message);

// Of the bytes behind the length. Error(data) if they are of another kind or
// another version of this program.
NodeMessage decode_message(std::string_view bytes);

} // namespace deepspeed::launcher
