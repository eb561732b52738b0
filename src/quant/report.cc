#include "quant/report.h"

namespace quern {
namespace {

Json linear_to_json(const LinearReport& linear) {
  return {{"name", linear.name},       {"rows", linear.rows},
          {"columns", linear.columns}, {"rtn_loss", linear.rtn_loss},
          {"loss", linear.loss},       {"signal", linear.signal},
          {"groups", linear.groups},   {"reverted_groups", linear.reverted_groups},
          {"damping", linear.damping}};
}

Result<LinearReport> linear_from_json(const Json& json) {
  if (!json.is_object())
    return Error{ErrorCode::kInvalidArgument, "a layer's report is no JSON object"};
  const JsonObject object(json, "report");
  LinearReport linear;
  linear.name = QUERN_TRY(object.string("name"));
  linear.rows = QUERN_TRY(object.integer("rows"));
  linear.columns = QUERN_TRY(object.integer("columns"));
  linear.rtn_loss = QUERN_TRY(object.number("rtn_loss"));
  linear.loss = QUERN_TRY(object.number("loss"));
  linear.signal = QUERN_TRY(object.number("signal"));
  linear.groups = QUERN_TRY(object.integer("groups"));
  linear.reverted_groups = QUERN_TRY(object.integer("reverted_groups"));
  linear.damping = QUERN_TRY(object.number("damping"));
  return linear;
}

Json plan_to_json(const QuantizePlan& plan) {
  return {{"blocks", plan.blocks},
          {"linears", plan.linears},
          {"windows", plan.windows},
          {"windows_given", plan.windows_given},
          {"held_out_windows", plan.held_out_windows},
          {"tokens", plan.tokens},
          {"memory_bytes", plan.memory_bytes},
          {"activation_bytes", plan.activation_bytes},
          {"statistics_bytes", plan.statistics_bytes},
          {"estimated_weight_bytes", plan.estimated_weight_bytes},
          {"notes", plan.notes}};
}

}  // namespace

Json block_report_to_json(const BlockReport& report) {
  Json linears = Json::array();
  for (const LinearReport& linear : report.linears) linears.push_back(linear_to_json(linear));
  return {{"name", report.name},
          {"seconds", report.seconds},
          {"fold_error", report.fold_error},
          {"fold", report.fold},
          {"output_error", report.output_error},
          {"resumed", report.resumed},
          {"linears", linears}};
}

Result<BlockReport> block_report_from_json(const Json& json) {
  if (!json.is_object())
    return Error{ErrorCode::kInvalidArgument, "a block's report is no JSON object"};
  const JsonObject object(json, "report");
  BlockReport report;
  report.name = QUERN_TRY(object.string("name"));
  report.seconds = QUERN_TRY(object.number("seconds"));
  report.fold_error = QUERN_TRY(object.number("fold_error"));
  report.fold = QUERN_TRY(object.string("fold"));
  report.output_error = QUERN_TRY(object.number("output_error"));
  report.resumed = QUERN_TRY(object.boolean("resumed"));
  const Json* linears = object.find("linears");
  if (linears == nullptr || !linears->is_array())
    return Error{ErrorCode::kInvalidArgument, "a block's report has no list of layers"};
  for (const Json& linear : *linears) report.linears.push_back(QUERN_TRY(linear_from_json(linear)));
  return report;
}

Json QuantizeReport::to_json() const {
  Json blocks = Json::array();
  for (const BlockReport& block : layers) blocks.push_back(block_report_to_json(block));
  return {{"method", method},
          {"bits", bits},
          {"group_size", group_size},
          {"format", quant_format_name(format)},
          {"output", output.string()},
          {"source_bytes", source_bytes},
          {"weight_bytes", weight_bytes},
          {"file_bytes", file_bytes},
          {"seconds", seconds},
          {"peak_rss_bytes", peak_rss_bytes},
          {"verified_tensors", verified_tensors},
          {"plan", plan_to_json(plan)},
          {"layers", blocks},
          {"notes", notes}};
}

}  // namespace quern
