// Which slots of which hosts a job uses: --include, --exclude, --num_nodes and
// --num_gpus.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/launcher/hostfile.h"

namespace deepspeed::launcher {

// A host and the slots of it that are used, one rank each, in rank order.
struct Node {
  std::string host;
  std::vector<int> slots; // rising; never empty in a result
};

struct ResourceFilter {
  // NODE[:SLOT[,SLOT...]][@NODE...], where a SLOT is a number or a range 0-3.
  // Without slots a NODE means all slots of the host. "" = not given.
  std::string include;
  std::string exclude;
  // The first hosts; the slots [0, num_gpus) of each host. -1 = not given.
  int num_nodes = -1;
  int num_gpus = -1;

  bool empty() const {
    return include.empty() && exclude.empty() && num_nodes < 0 && num_gpus < 0;
  }
};

// The nodes in the order of `hosts`. Slots given twice count once; as in
// DeepSpeed `w0:0@w0` is slot 0 only. Error(usage) for bad grammar, a host or
// a slot that is not there, flags that exclude each other, and when nothing is
// left.
std::vector<Node> filter_resources(
    const std::vector<Host>& hosts,
    const ResourceFilter& filter);

// "3", "1,3-5": numbers and ranges, at most kMaxSlots numbers, in the order
// written. Error(usage) that quotes `text` and names `where`.
std::vector<int> parse_number_list(
    const std::string& text,
    const std::string& where);

} // namespace deepspeed::launcher
