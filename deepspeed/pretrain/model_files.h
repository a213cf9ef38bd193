// Models as transformers keeps them: config.json, model.safetensors, tokenizer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "deepspeed/bert/roberta.h"
#include "deepspeed/settings/settings.h"
#include "deepspeed/text/tokenizer.h"

namespace deepspeed::pretrain {

// The model of HelloDeepSpeed with these settings.
bert::RobertaConfig model_config(const settings::ModelSettings& settings);

// Writes a folder that AutoModelForMaskedLM.from_pretrained() loads. `weights`
// are fp32 under state-dict names; the unused pooler is left out, as
// RobertaForMaskedLM has none. Each file appears whole or not at all.
//
// The model and tokenizer files of the folder are the export's: those that
// transformers could load in place of the new ones are removed, and named in a
// line. config.json goes first and comes last, so that what a killed export
// leaves is no model.
void export_model(
    const std::string& folder,
    const bert::RobertaConfig& config,
    const std::vector<bert::NamedTensor>& weights,
    const text::Tokenizer& tokenizer);

// Error(cannot_create) if export_model() could not write there: known before
// anything is trained. Makes nothing.
void check_export_folder(const std::string& folder);

struct LoadedModel {
  bert::RobertaForMaskedLM model{nullptr}; // in evaluation mode, fp32
  std::shared_ptr<const text::Tokenizer> tokenizer;
};

// Loads a folder of a RoBERTa model as transformers writes it, in one file of
// weights or in several, or a checkpoint of either training program: see
// checkpoint/checkpoint_path.h. Of an experiment the newest one, which must be
// whole; with `newest_whole` the newest that is. Errors name the file.
LoadedModel load_model(
    const std::string& path,
    const std::string& data_dir,
    bool newest_whole = false);

} // namespace deepspeed::pretrain
