// The grammar of --include and --exclude, row by row.
#include "deepspeed/launcher/resource_filter.h"

#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {
namespace {

// "w0:0,1 w1:3".
std::string text_of(const std::vector<Node>& nodes) {
  std::string text;
  for (const Node& node : nodes) {
    text += (text.empty() ? "" : " ") + node.host;
    char separator = ':';
    for (const int slot : node.slots) {
      text += separator + std::to_string(slot);
      separator = ',';
    }
  }
  return text;
}

const std::vector<Host> kHosts{
    {.name = "w0", .slots = 4},
    {.name = "w1", .slots = 2}};

struct GoodRow {
  ResourceFilter filter;
  const char* expected;
};

TEST(ResourceFilter, GoodRows) {
  const GoodRow table[] = {
      {{}, "w0:0,1,2,3 w1:0,1"},
      {{.include = "w0"}, "w0:0,1,2,3"},
      {{.include = "w1"}, "w1:0,1"},
      {{.include = "w0@w1:0"}, "w0:0,1,2,3 w1:0"},
      // The order of hosts is the hostfile's.
      {{.include = "w1@w0:2"}, "w0:2 w1:0,1"},
      {{.include = "w0:1@w0:3"}, "w0:1,3"},
      {{.include = "w0:3,1,3"}, "w0:1,3"},
      // As DeepSpeed has it: the slots count, not the whole host.
      {{.include = "w0:0@w0"}, "w0:0"},
      {{.include = "w0:0-1"}, "w0:0,1"},
      {{.include = "w0:0,2-3"}, "w0:0,2,3"},
      {{.exclude = "w1"}, "w0:0,1,2,3"},
      {{.exclude = "w1:0"}, "w0:0,1,2,3 w1:1"},
      {{.exclude = "w1:0,1"}, "w0:0,1,2,3"},
      {{.exclude = "w0:0-2@w1:1"}, "w0:3 w1:0"},
      {{.num_nodes = 1}, "w0:0,1,2,3"},
      {{.num_nodes = 2}, "w0:0,1,2,3 w1:0,1"},
      {{.num_gpus = 1}, "w0:0 w1:0"},
      {{.num_gpus = 2}, "w0:0,1 w1:0,1"},
      {{.num_nodes = 1, .num_gpus = 3}, "w0:0,1,2"},
  };
  for (const GoodRow& row : table) {
    SCOPED_TRACE(row.expected);
    EXPECT_EQ(text_of(filter_resources(kHosts, row.filter)), row.expected);
  }
}

struct BadRow {
  ResourceFilter filter;
  const char* words;
};

TEST(ResourceFilter, BadRows) {
  const BadRow table[] = {
      {{.include = "w2"}, "host 'w2' is not among"},
      {{.include = "w2:0"}, "host 'w2' is not among"},
      {{.exclude = "w2"}, "host 'w2' is not among"},
      {{.include = "w1:2"}, "host 'w1' has no slot 2"},
      {{.exclude = "w1:0-2"}, "host 'w1' has no slot 2"},
      {{.include = "w0:"}, "'' in '' is not a number"},
      {{.include = "w0:0,"}, "'' in '0,' is not a number"},
      {{.include = "w0:1:2"}, "'1:2' in '1:2' is not a number"},
      {{.include = "w0:x"}, "'x' in 'x' is not a number"},
      {{.include = "w0:-1"}, "'-1' in '-1' is not a number"},
      {{.include = "w0:3-1"}, "'3-1' in '3-1' is not a number"},
      {{.include = "w0:0-99999999"}, "more than 4096 numbers"},
      {{.include = "w0:99999999999"}, "is not a number"},
      {{.include = "w0: 1"}, "is not a number"},
      {{.include = "@w0"}, "a host without a name"},
      {{.include = "w0@"}, "a host without a name"},
      {{.include = ":0"}, "a host without a name"},
      {{.include = "-v:0"}, "not a host name"},
      {{.exclude = "w0@w1"}, "no slot is left"},
      {{.exclude = "w0:0-3@w1:0,1"}, "no slot is left"},
      {{.include = "w0", .exclude = "w1"}, "do not go together"},
      {{.include = "w0", .num_gpus = 1}, "do not go with"},
      {{.exclude = "w0", .num_nodes = 1}, "do not go with"},
      {{.num_nodes = 3}, "--num_nodes 3, but there are 2 hosts"},
      {{.num_nodes = 0}, "--num_nodes 0"},
      {{.num_gpus = 3}, "--num_gpus 3, but host 'w1' has 2"},
      {{.num_gpus = 0}, "--num_gpus 0"},
      {{.num_gpus = -7}, "--num_gpus -7"},
  };
  for (const BadRow& row : table) {
    SCOPED_TRACE(row.filter.include + "|" + row.filter.exclude);
    try {
      FAIL() << text_of(filter_resources(kHosts, row.filter));
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(row.words), std::string::npos)
          << error.what();
    }
  }
}

TEST(ResourceFilter, AHostWithoutGpusHasAnySlot) {
  const std::vector<Host> hosts{
      {.name = "localhost", .slots = 1, .any_slot = true}};
  const auto filtered = [&](const ResourceFilter& filter) {
    return text_of(filter_resources(hosts, filter));
  };
  EXPECT_EQ(filtered({}), "localhost:0");
  EXPECT_EQ(filtered({.include = "localhost:2,3,4,5"}), "localhost:2,3,4,5");
  EXPECT_EQ(filtered({.num_gpus = 3}), "localhost:0,1,2");
  EXPECT_THROW(filtered({.exclude = "localhost:0"}), base::Error);
}

TEST(ResourceFilter, NamesTheNearestHost) {
  try {
    filter_resources(
        {{.name = "worker-1", .slots = 1}, {.name = "node", .slots = 1}},
        {.include = "worker-2"});
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.where(), "--include");
    EXPECT_NE(error.hint().find("worker-1"), std::string::npos);
  }
}

} // namespace
} // namespace deepspeed::launcher
