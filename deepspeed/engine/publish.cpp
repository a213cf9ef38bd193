// Publishing a checkpoint whose files several ranks write.
#include "deepspeed/engine/publish.h"

#include <numeric>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/zero_states.h"
#include "deepspeed/comm/agree.h"
#include "deepspeed/comm/gather.h"
#include "deepspeed/comm/shared_folder.h"

namespace deepspeed {
namespace {

using checkpoint::FileRecord;

uint64_t sum_over(comm::ProcessGroup& ranks, uint64_t own) {
  const std::vector<uint64_t> all = comm::gather(ranks, own);
  return std::accumulate(all.begin(), all.end(), uint64_t{0});
}

std::vector<FileRecord> records_of_all(
    comm::ProcessGroup& ranks,
    const std::vector<FileRecord>& own) {
  base::Json json = base::Json::array();
  for (const FileRecord& record : own) {
    json.push_back({record.name, record.size, record.hash});
  }
  std::vector<FileRecord> records;
  for (const std::string& text : ranks.all_gather_text(json.dump())) {
    for (const base::Json& item : base::Json::parse(text)) {
      records.push_back({item[0], item[1], item[2]});
    }
  }
  return records;
}

void write_all(
    comm::ProcessGroup& ranks,
    checkpoint::CheckpointCommit& commit,
    const std::vector<RankFile>& files,
    checkpoint::Manifest manifest) {
  uint64_t own_bytes = 0;
  comm::agree(ranks, [&] {
    for (const RankFile& file : files) {
      own_bytes += checkpoint::estimate_file_bytes(file.value);
    }
  });
  const uint64_t bytes = sum_over(ranks, own_bytes);
  comm::agree_at_root(ranks, [&] { commit.begin(bytes); });
  std::vector<FileRecord> own;
  comm::agree(ranks, [&] {
    for (const RankFile& file : files) {
      own.push_back(commit.add(file.name, file.value));
    }
  });
  manifest.files = records_of_all(ranks, own);
  comm::agree_at_root(ranks, [&] {
    for (const std::string& line : commit.publish(manifest)) {
      base::log_info(line);
    }
  });
}

} // namespace

void publish_together(
    comm::ProcessGroup& ranks,
    checkpoint::CheckpointCommit& commit,
    const std::vector<RankFile>& files,
    checkpoint::Manifest manifest) {
  comm::require_shared_folder(ranks, commit.folder());
  try {
    write_all(ranks, commit, files, std::move(manifest));
  } catch (const base::Error&) {
    if (ranks.rank() == 0) {
      commit.abandon();
    }
    throw;
  }
}

} // namespace deepspeed
