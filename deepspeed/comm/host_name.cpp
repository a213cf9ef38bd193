// What this machine calls itself.
#include "deepspeed/comm/host_name.h"

#include <unistd.h>

namespace deepspeed::comm {

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

} // namespace deepspeed::comm
