// Block reports as JSON, for the report beside a checkpoint and for work that is taken up again.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "quant/quantize.h"

namespace quern {

Json block_report_to_json(const BlockReport& report);

// Errors: kInvalidArgument for anything that block_report_to_json() does not write.
Result<BlockReport> block_report_from_json(const Json& json);

}  // namespace quern
