#include "model/model.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "model/block.h"
#include "tensor/formats/float8.h"

namespace quern {
namespace {

constexpr int64_t kMaxBatchTokens = int64_t{1} << 20;
constexpr int64_t kMaxKvBlocks = int64_t{1} << 26;

// The first attention block from the end: behind it a row meets no other, so rows without wanted
// logits need not go on.
size_t last_attention(const ModelSpec& spec) {
  for (size_t i = spec.blocks.size(); i-- > 0;) {
    if (std::holds_alternative<AttentionSpec>(spec.blocks[i].mixer)) return i;
  }
  return 0;
}

// Moves the wanted rows to the front, in place: they are ascending, so none is overwritten unread.
Tensor compact_rows(Tensor x, std::span<const int32_t> wanted) {
  const size_t row_bytes = static_cast<size_t>(x.row_elements()) * sizeof(float);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto to = static_cast<int64_t>(i);
    if (wanted[i] != to) std::memcpy(x.f32_row(to), x.f32_row(wanted[i]), row_bytes);
  }
  return x.slice_rows(0, static_cast<int64_t>(wanted.size()));
}

// Ascending rows, some in both.
void merge_rows(std::span<const int32_t> a, std::span<const int32_t> b, std::vector<int32_t>& out) {
  out.clear();
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
}

// Rows of the batch become places among `kept`, which holds them all; in place.
void find_places(std::span<const int32_t> kept, std::vector<int32_t>& rows) {
  size_t place = 0;
  for (int32_t& row : rows) {
    while (kept[place] != row) ++place;
    row = static_cast<int32_t>(place);
  }
}

// One buffer for each attention block, none for the others.
class KvCache {
 public:
  KvCache(const ModelSpec& spec, const Backend& backend, const ModelLimits& limits) {
    for (const BlockSpec& block : spec.blocks) {
      KvLayer layer;
      Buffer buffer;
      if (const auto* attention = std::get_if<AttentionSpec>(&block.mixer)) {
        layer.layout = {limits.kv_dtype, attention->kv_heads, attention->head_dim};
        layer.block_bytes = backend.kv_block_bytes(layer.layout);
        buffer = Buffer(layer.block_bytes * static_cast<size_t>(limits.kv_blocks));
        layer.data = buffer.data();
      }
      bytes_ += buffer.bytes();
      layers_.push_back(layer);
      buffers_.push_back(std::move(buffer));
    }
  }

  const KvLayer& layer(size_t block) const { return layers_[block]; }

  size_t bytes() const { return bytes_; }

 private:
  std::vector<KvLayer> layers_;
  std::vector<Buffer> buffers_;
  size_t bytes_ = 0;
};

struct Weights {
  std::unique_ptr<PackedWeight> embedding;
  std::vector<BlockWeights> blocks;
  std::vector<float> final_norm;
  std::unique_ptr<PackedWeight> head;  // nullptr when tied

  size_t bytes() const {
    size_t total = embedding->bytes() + final_norm.size() * sizeof(float);
    if (head != nullptr) total += head->bytes();
    for (const BlockWeights& block : blocks) {
      total += block.input->bytes() + block.output->bytes();
      total += (block.norm.size() + block.q_norm.size() + block.k_norm.size()) * sizeof(float);
    }
    return total;
  }
};

class LoadedModel final : public Model {
 public:
  LoadedModel(ModelSpec spec, Weights weights, Backend& backend, const ModelLimits& limits)
      : spec_(std::move(spec)),
        limits_(limits),
        weights_(std::move(weights)),
        backend_(backend),
        kv_(spec_, backend, limits),
        scratch_(spec_, limits.max_batch_tokens),
        residual_(limits.max_batch_tokens, spec_.hidden),
        last_attention_(last_attention(spec_)) {
    kept_.reserve(static_cast<size_t>(limits.max_batch_tokens));
    places_.reserve(static_cast<size_t>(limits.max_batch_tokens));
  }

  const ModelSpec& spec() const override { return spec_; }

  const ModelLimits& limits() const override { return limits_; }

  void forward(const Batch& batch, Tensor logits) override {
    check(batch, logits);
    merge_rows(batch.logit_rows, batch.hidden_rows, kept_);
    const Step step{batch.positions, batch.sequences};
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    Tensor x = residual_.tensor().slice_rows(0, rows);
    Tensor h = scratch_.normed.tensor().slice_rows(0, rows);
    backend_.embed(x, *weights_.embedding, batch.tokens);
    backend_.rms_norm(h, x, weights_.blocks[0].norm, spec_.blocks[0].norm.eps);
    for (size_t i = 0; i < spec_.blocks.size(); ++i) {
      Tensor y = run_mixer(spec_.blocks[i], weights_.blocks[i], backend_, kv_.layer(i), step, h,
                           scratch_, nullptr);
      if (i == last_attention_) {
        if (kept_.empty()) return;
        x = compact_rows(x, kept_);
        y = compact_rows(y, kept_);
        h = h.slice_rows(0, x.rows());
      }
      const bool last = i + 1 == spec_.blocks.size();
      const NormSpec& norm = last ? spec_.final_norm : spec_.blocks[i + 1].norm;
      backend_.add_rms_norm(h, x, y, last ? weights_.final_norm : weights_.blocks[i + 1].norm,
                            norm.eps);
    }
    write_hidden(batch, h);
    if (batch.logit_rows.empty()) return;
    h = compact_rows(h, places(batch.logit_rows));
    backend_.linear(logits, h, spec_.tied_head() ? *weights_.embedding : *weights_.head);
  }

  void report(LoadReport& out) const {
    out.weight_bytes = weights_.bytes();
    out.kv_cache_bytes = kv_.bytes();
    out.scratch_bytes = static_cast<uint64_t>(limits_.max_batch_tokens) * step_row_bytes(spec_);
  }

 private:
  // Where rows of the batch lie among those that were kept.
  std::span<const int32_t> places(std::span<const int32_t> rows) {
    places_.assign(rows.begin(), rows.end());
    find_places(kept_, places_);
    return places_;
  }

  void write_hidden(const Batch& batch, const Tensor& h) {
    const size_t row_bytes = static_cast<size_t>(spec_.hidden) * sizeof(float);
    const std::span<const int32_t> from = places(batch.hidden_rows);
    for (size_t i = 0; i < from.size(); ++i) {
      std::memcpy(batch.hidden.f32_row(static_cast<int64_t>(i)), h.f32_row(from[i]), row_bytes);
    }
  }

  void check(const Batch& batch, const Tensor& logits) const {
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    QUERN_CHECK(rows > 0 && rows <= limits_.max_batch_tokens);
    QUERN_CHECK(batch.positions.size() == batch.tokens.size());
    QUERN_CHECK(static_cast<int64_t>(batch.logit_rows.size()) <= limits_.max_logit_rows);
    for (const int32_t token : batch.tokens) QUERN_CHECK(token >= 0 && token < spec_.vocabulary);
    check_rows(batch.logit_rows, rows, logits, spec_.vocabulary);
    check_rows(batch.hidden_rows, rows, batch.hidden, spec_.hidden);
  }

  static void check_rows(std::span<const int32_t> wanted,
                         int64_t rows,
                         const Tensor& out,
                         int64_t columns) {
    int64_t previous = -1;
    for (const int32_t row : wanted) {
      QUERN_CHECK(row > previous && row < rows);
      previous = row;
    }
    if (wanted.empty()) return;
    QUERN_CHECK(out.rows() == static_cast<int64_t>(wanted.size()));
    QUERN_CHECK(out.rank == 2 && out.shape[1] == columns);
  }

  ModelSpec spec_;
  ModelLimits limits_;
  Weights weights_;
  Backend& backend_;
  KvCache kv_;
  BlockScratch scratch_;
  FloatMatrix residual_;  // [max_batch_tokens, hidden]
  size_t last_attention_;
  std::vector<int32_t> kept_;  // of one step, reused: the rows whose results are wanted
  std::vector<int32_t> places_;
};

// Counts what packing rounded, by the stored format.
class Notes {
 public:
  void add(const std::string& format, std::string_view note, size_t matrices) {
    if (!note.empty()) counts_[fmt::format("{}: {}", format, note)] += matrices;
  }

  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    for (const auto& [text, count] : counts_) {
      out.push_back(fmt::format("{} ({} {})", text, count, count == 1 ? "matrix" : "matrices"));
    }
    return out;
  }

 private:
  std::map<std::string, size_t> counts_;
};

// Reads and packs, layer by layer, and keeps account for the progress bar and the report.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint,
         const ModelSpec& spec,
         Backend& backend,
         const LoadOptions& options)
      : checkpoint_(checkpoint), spec_(spec), backend_(backend), options_(options) {
    total_bytes_ = checkpoint.weight_bytes(spec.embedding);
    if (!spec.tied_head()) total_bytes_ += checkpoint.weight_bytes(spec.head.name);
    for (const BlockSpec& block : spec.blocks) {
      for (const LinearSpec* l : linears(block)) total_bytes_ += checkpoint.weight_bytes(l->name);
    }
  }

  Result<Weights> load() {
    Weights weights;
    head_group_ = QUERN_TRY(head_group_size(spec_, checkpoint_, options_.precision, options_.head));
    const LinearSpec table{spec_.embedding, spec_.hidden, spec_.vocabulary, false};
    weights.embedding = QUERN_TRY(load_single(table));
    for (const BlockSpec& block : spec_.blocks) {
      weights.blocks.push_back(QUERN_TRY(load_one_block(block)));
    }
    weights.final_norm = QUERN_TRY(load_norm(spec_.final_norm, checkpoint_));
    if (!spec_.tied_head()) weights.head = QUERN_TRY(load_single(spec_.head));
    return weights;
  }

  std::vector<std::string> notes() const { return notes_.lines(); }

 private:
  Result<Weight> read(const LinearSpec& linear) {
    Weight weight = QUERN_TRY(checkpoint_.weight(linear.name, &backend_.pool()));
    if (std::holds_alternative<Float8Weight>(weight)) return hold_float8(std::move(weight));
    if (!head_group_ || linear.name != head_name(spec_)) return weight;
    const WeightInfo info = QUERN_TRY(checkpoint_.weight_info(linear.name));
    notes_.add(fmt::format("{} head", info.format),
               fmt::format("held in 8 bits, groups of {}", *head_group_), 1);
    return Weight(round_to_int8(weight, *head_group_, backend_.pool()));
  }

  // Run fast, FP8 becomes 8-bit integers.
  Weight hold_float8(Weight weight) {
    const auto& float8 = std::get<Float8Weight>(weight);
    const std::optional<int> group = float8_group_size(float8.columns, float8.block_columns);
    if (options_.precision != Precision::kFast || !group) return weight;
    notes_.add("F8_E4M3", fmt::format("held as 8-bit integers, groups of {}", *group), 1);
    return Weight(integers_of(float8, *group, backend_.pool()));
  }

  Result<std::unique_ptr<PackedWeight>> load_single(const LinearSpec& linear) {
    const auto source = [this](const LinearSpec& spec) { return read(spec); };
    const LinearSpec* single = &linear;
    auto packed =
        QUERN_TRY(load_joined({&single, 1}, checkpoint_, source, backend_, options_.precision));
    QUERN_TRY(account({&single, 1}, *packed));
    return packed;
  }

  Result<BlockWeights> load_one_block(const BlockSpec& block) {
    const auto source = [this](const LinearSpec& spec) { return read(spec); };
    BlockWeights weights =
        QUERN_TRY(load_block(block, checkpoint_, source, backend_, options_.precision));
    QUERN_TRY(account(input_linears(block.mixer), *weights.input));
    const LinearSpec* output = &output_linear(block.mixer);
    QUERN_TRY(account({&output, 1}, *weights.output));
    return weights;
  }

  Result<Unit> account(std::span<const LinearSpec* const> linears, const PackedWeight& packed) {
    std::string formats;
    for (const LinearSpec* linear : linears) {
      const WeightInfo info = QUERN_TRY(checkpoint_.weight_info(linear->name));
      if (formats.find(info.format) == std::string::npos) {
        formats += (formats.empty() ? "" : " and ") + info.format;
      }
      done_bytes_ += info.bytes;
    }
    notes_.add(formats, packed.note(), linears.size());
    if (options_.progress != nullptr) (*options_.progress)(done_bytes_, total_bytes_);
    return Unit{};
  }

  const Checkpoint& checkpoint_;
  const ModelSpec& spec_;
  Backend& backend_;
  const LoadOptions& options_;
  std::optional<int> head_group_;
  uint64_t done_bytes_ = 0;
  uint64_t total_bytes_ = 0;
  Notes notes_;
};

Result<Unit> check_limit(std::string_view name, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return Unit{};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}; expected a number from 1 to {}", name, value, max)};
}

}  // namespace

Result<std::unique_ptr<Model>> load_model(const Checkpoint& checkpoint,
                                          Backend& backend,
                                          const LoadOptions& options,
                                          LoadReport* report) {
  const ModelLimits& limits = options.limits;
  QUERN_TRY(check_limit("max_batch_tokens", limits.max_batch_tokens, kMaxBatchTokens));
  QUERN_TRY(check_limit("max_logit_rows", limits.max_logit_rows, kMaxBatchTokens));
  QUERN_TRY(check_limit("kv_blocks", limits.kv_blocks, kMaxKvBlocks));
  ModelSpec spec = QUERN_TRY(read_spec(checkpoint));
  Loader loader(checkpoint, spec, backend, options);
  Weights weights = QUERN_TRY(loader.load());
  auto model = std::make_unique<LoadedModel>(std::move(spec), std::move(weights), backend, limits);
  if (report != nullptr) {
    model->report(*report);
    report->notes = loader.notes();
  }
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace quern
