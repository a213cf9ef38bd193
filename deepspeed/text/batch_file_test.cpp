// The lines of JSON that other programs read.
#include "deepspeed/text/batch_file.h"

#include <gtest/gtest.h>

#include "deepspeed/base/json.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"

namespace deepspeed::text {
namespace {

const PackedBatch kBatch{
    {0, 260, 5, 2, 0, 6, 2},
    {2, 3, 4, 5, 2, 3, 4},
    {0, 4, 7},
    {1, 5},
    {4, 6},
    {16, uint64_t{1} << 63}};

TEST(BatchFile, IsJsonWithTheNamesOfTheFields) {
  EXPECT_EQ(
      batch_to_json(kBatch),
      R"({"ids": [0, 260, 5, 2, 0, 6, 2], )"
      R"("positions": [2, 3, 4, 5, 2, 3, 4], "cu_seqlens": [0, 4, 7], )"
      R"("masked": [1, 5], "labels": [4, 6], )"
      R"("visits": [16, 9223372036854775808]})");
  const base::Json json = base::parse_json(batch_to_json({}), "");
  EXPECT_EQ(json.size(), 6u);
  EXPECT_EQ(json["visits"].size(), 0u);
}

TEST(BatchFile, HasOneLineForEachBatch) {
  const file::TemporaryFolder folder;
  const std::string path = folder.path() + "/batches.jsonl";
  BatchFileWriter writer(path);
  writer.write(kBatch);
  writer.write({});
  writer.commit();
  const std::string text = file::read_file(path, 10000);
  EXPECT_EQ(text, batch_to_json(kBatch) + "\n" + batch_to_json({}) + "\n");
}

} // namespace
} // namespace deepspeed::text
