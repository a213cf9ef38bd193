// What a program needs of its process before it opens the first file.
#pragma once

namespace deepspeed::base {

// - A standard stream that is closed is opened on /dev/null: else the next file
//   gets its number, and log lines land in it.
// - Output that nobody reads (SIGPIPE) and a limit on file sizes (SIGXFSZ) fail
//   the write in place of ending the process. Programs that this one starts
//   have the usual actions; what was ignored or handled before stays so.
// - Error(no_input) if the current folder was deleted: libraries end the
//   process without a reason there.
void prepare_process();

} // namespace deepspeed::base
