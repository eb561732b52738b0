#include "quant/streams.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tensor/weight.h"

namespace quern {
namespace {

KvLayout layout_of(const AttentionSpec& attention) {
  return {.dtype = KvDType::kF32, .kv_heads = attention.kv_heads, .head_dim = attention.head_dim};
}

int64_t block_count(int64_t longest) { return (longest + kKvBlockTokens - 1) / kKvBlockTokens; }

size_t cache_bytes(const ModelSpec& spec, const Backend& backend, int64_t longest) {
  size_t widest = 0;
  for (const BlockSpec& block : spec.blocks) {
    if (const auto* attention = std::get_if<AttentionSpec>(&block.mixer))
      widest = std::max(widest, backend.kv_block_bytes(layout_of(*attention)));
  }
  return widest * static_cast<size_t>(block_count(longest));
}

}  // namespace

Result<Streams> embed_windows(const ModelSpec& spec,
                              const Checkpoint& checkpoint,
                              const std::vector<std::vector<int32_t>>& windows,
                              int held_out_every,
                              RoundedStream rounded) {
  Streams streams;
  int64_t tokens = 0;
  for (size_t i = 0; i < windows.size(); ++i) {
    const bool held_out = held_out_every > 0 && (i + 1) % static_cast<size_t>(held_out_every) == 0;
    const auto rows = static_cast<int64_t>(windows[i].size());
    streams.windows.push_back({.begin = tokens, .rows = rows, .held_out = held_out});
    tokens += rows;
  }
  const Weight table = QUERN_TRY(checkpoint.weight(spec.embedding));
  if (weight_columns(table) != spec.hidden || weight_rows(table) != spec.vocabulary) {
    return Error{ErrorCode::kInvalidArgument,
                 spec.embedding + ".weight has another shape than the configuration asks for"};
  }
  streams.full = FloatMatrix(tokens, spec.hidden);
  int64_t row = 0;
  for (const auto& window : windows) {
    for (const int32_t token : window) widen_row(table, token, streams.full.row(row++));
  }
  if (rounded == RoundedStream::kFollowed) {
    streams.rounded = FloatMatrix(tokens, spec.hidden);
    std::memcpy(streams.rounded.data(), streams.full.data(),
                static_cast<size_t>(tokens * spec.hidden) * sizeof(float));
  }
  return streams;
}

BlockRunner::BlockRunner(const ModelSpec& spec, Backend& backend, int64_t longest)
    : backend_(backend), scratch_(spec, longest), cache_(cache_bytes(spec, backend, longest)) {
  for (int64_t i = 0; i < longest; ++i) positions_.push_back(static_cast<int32_t>(i));
  for (int64_t i = 0; i < block_count(longest); ++i)
    block_table_.push_back(static_cast<int32_t>(i));
}

Tensor BlockRunner::run(const BlockSpec& spec,
                        const BlockWeights& weights,
                        Tensor stream,
                        LinearObserver* observer) {
  const int64_t rows = stream.rows();
  QUERN_CHECK(rows <= static_cast<int64_t>(positions_.size()));
  const SequenceSpan sequence{
      .row_begin = 0, .row_count = rows, .position_begin = 0, .block_table = block_table_};
  const Step step{
      .positions = std::span<const int32_t>(positions_).first(static_cast<size_t>(rows)),
      .sequences = std::span(&sequence, 1)};
  KvLayer kv;
  if (const auto* attention = std::get_if<AttentionSpec>(&spec.mixer)) {
    kv.layout = layout_of(*attention);
    kv.data = cache_.data();
    kv.block_bytes = backend_.kv_block_bytes(kv.layout);
  }
  const Tensor h = scratch_.normed.tensor().slice_rows(0, rows);
  backend_.rms_norm(h, stream, weights.norm, spec.norm.eps);
  return run_mixer(spec, weights, backend_, kv, step, h, scratch_, observer);
}

size_t BlockRunner::bytes(const ModelSpec& spec, const Backend& backend, int64_t longest) {
  return static_cast<uint64_t>(longest) * scratch_row_bytes(spec) +
         cache_bytes(spec, backend, longest);
}

}  // namespace quern
