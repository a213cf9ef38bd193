// Pipes and pseudo-terminals.
#pragma once

#include "deepspeed/file/descriptor.h"

namespace deepspeed::launcher {

struct Pipe {
  file::Descriptor reader;
  file::Descriptor writer;
};

// Both ends close on exec; the reader does not block. Error(internal) when the
// limit of open files is reached.
Pipe make_pipe();

// A pseudo-terminal of the size of the terminal `like`. What is written to the
// slave comes out of the master unchanged; the master does not block.
struct PseudoTerminal {
  file::Descriptor master;
  file::Descriptor slave;
};
PseudoTerminal make_terminal(int like);

// Gives the terminal behind `master` the size of the terminal `like`.
void copy_terminal_size(int like, int master);

void set_nonblocking(int fd);

} // namespace deepspeed::launcher
