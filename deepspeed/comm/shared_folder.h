// Whether all hosts of a run see one folder.
#pragma once

#include <string>

#include "deepspeed/comm/process_group.h"

namespace deepspeed::comm {

// Throws base::Error(config) on all ranks, naming the hosts, when a rank does
// not see within seconds what rank 0 writes into `folder` (as it is named by
// rank 0; what need not be there yet: then into the folder above that is). What
// is written is removed. Where ranks share memory, hence a host, nothing is
// written: the folder is compared by its number. A collective; nothing is done
// where rank 0 may not write.
void require_shared_folder(ProcessGroup& ranks, const std::string& folder);

} // namespace deepspeed::comm
