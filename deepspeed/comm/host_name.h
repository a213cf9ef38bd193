// What this machine calls itself.
#pragma once

#include <string>

namespace deepspeed::comm {

std::string host_name();

} // namespace deepspeed::comm
