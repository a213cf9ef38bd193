// Lines of ranks on their way to the launcher's streams.
#include "deepspeed/launcher/output_relay.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace deepspeed::launcher {
namespace {

using testing::ElementsAre;

// A relay whose sink is a pipe that the test reads.
class RelayTest : public testing::Test {
 protected:
  file::Descriptor add_rank() {
    Pipe pipe = make_pipe();
    relay_.add_pipe(std::move(pipe.reader), out_.writer.get(), tail_);
    return std::move(pipe.writer);
  }
  static void write(const file::Descriptor& fd, std::string_view text) {
    ASSERT_EQ(
        ::write(fd.get(), text.data(), text.size()),
        static_cast<ssize_t>(text.size()));
  }
  // What has arrived after everything that is ready was passed on.
  std::string output() {
    for (int i = 0; i < 100; ++i) {
      relay_.wait({}, std::chrono::milliseconds(0));
      std::array<char, 1 << 16> buffer;
      const ssize_t n = ::read(out_.reader.get(), buffer.data(), buffer.size());
      text_.append(buffer.data(), static_cast<size_t>(std::max<ssize_t>(0, n)));
    }
    return std::exchange(text_, "");
  }

  Pipe out_ = make_pipe();
  OutputRelay relay_;
  std::shared_ptr<LineTail> tail_ = std::make_shared<LineTail>();
  std::string text_;
};

TEST_F(RelayTest, HalvesWaitForTheirLine) {
  const file::Descriptor one = add_rank();
  const file::Descriptor other = add_rank();
  write(one, "one-");
  write(other, "other\n");
  EXPECT_EQ(output(), "other\n");
  write(one, "half\nnext");
  EXPECT_EQ(output(), "one-half\n");
}

// A write that waited would be ended by the alarm.
TEST(Relay, ATerminalThatNobodyReadsStopsNothing) {
  const PseudoTerminal terminal = make_terminal(STDIN_FILENO);
  OutputRelay relay;
  Pipe rank = make_pipe();
  set_nonblocking(rank.writer.get());
  relay.add_pipe(
      std::move(rank.reader),
      terminal.slave.get(),
      std::make_shared<LineTail>());
  const std::string line = std::string(1000, 'x') + "\n";
  ::alarm(20);
  std::array<char, 1 << 16> buffer;
  for (int i = 0; i < 2000; ++i) {
    [[maybe_unused]] ssize_t n =
        ::write(rank.writer.get(), line.data(), line.size());
    if (i % 100 == 99) { // a little room, now and then
      n = ::read(terminal.master.get(), buffer.data(), 300);
    }
    relay.wait({}, std::chrono::milliseconds(0));
  }
  ::alarm(0);
  EXPECT_FALSE(relay.flushed());
  for (int i = 0; i < 10000 && !relay.flushed(); ++i) {
    [[maybe_unused]] const ssize_t n =
        ::read(terminal.master.get(), buffer.data(), buffer.size());
    relay.wait({}, std::chrono::milliseconds(0));
  }
  EXPECT_TRUE(relay.flushed());
}

TEST_F(RelayTest, TheEndOfARankEndsItsLine) {
  file::Descriptor one = add_rank();
  write(one, "a\nlast");
  EXPECT_EQ(output(), "a\n");
  one.reset();
  EXPECT_EQ(output(), "last\n");
  EXPECT_TRUE(relay_.flushed());
  EXPECT_THAT(tail_->lines(), ElementsAre("a", "last"));
}

TEST_F(RelayTest, DrainReadsWhatIsLeft) {
  file::Descriptor one = add_rank();
  write(one, "left\nbehind");
  relay_.drain(); // although the pipe is still open
  EXPECT_EQ(output(), "left\nbehind\n");
}

TEST_F(RelayTest, RanksWaitWhenNobodyReads) {
  const file::Descriptor one = add_rank();
  set_nonblocking(one.get());
  const std::string line(999, 'x');
  size_t accepted = 0;
  for (int i = 0; i < 100000; ++i) {
    relay_.wait({}, std::chrono::milliseconds(0));
    const std::string text = line + "\n";
    const ssize_t n = ::write(one.get(), text.data(), text.size());
    accepted += static_cast<size_t>(std::max<ssize_t>(0, n));
  }
  // The queue, and what the two pipes hold.
  EXPECT_LT(accepted, OutputRelay::kMaxQueue + (1 << 19));
  size_t arrived = 0;
  while (arrived < accepted) {
    arrived += output().size();
  }
  EXPECT_EQ(arrived, accepted);
}

TEST_F(RelayTest, AReaderThatIsGoneStopsNothing) {
  ::signal(SIGPIPE, SIG_IGN);
  const file::Descriptor one = add_rank();
  out_.reader.reset();
  write(one, "lost\n");
  for (int i = 0; i < 10; ++i) {
    relay_.wait({}, std::chrono::milliseconds(0));
  }
  EXPECT_TRUE(relay_.flushed());
  EXPECT_THAT(tail_->lines(), ElementsAre("lost"));
  ::signal(SIGPIPE, SIG_DFL);
}

TEST(LineTail, KeepsTheLastTwentyAndCutsLongLines) {
  LineTail tail;
  for (int i = 0; i < 30; ++i) {
    tail.add(std::to_string(i) + "\n");
  }
  EXPECT_EQ(tail.lines().size(), 20U);
  EXPECT_EQ(tail.lines().front(), "10");
  tail.add(std::string(10000, 'y') + "\nz");
  EXPECT_EQ(tail.lines()[18].size(), LineTail::kLineBytes);
  EXPECT_EQ(tail.lines()[19], "z");
}

} // namespace
} // namespace deepspeed::launcher
