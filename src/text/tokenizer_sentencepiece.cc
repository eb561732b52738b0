// Reads SentencePiece models: the protobuf ModelProto of sentencepiece_model.proto, of which only
// the fields that matter to encoding are looked at.
#include <bit>
#include <cstring>
#include <optional>

#include <fmt/format.h>

#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace quern {
namespace {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// One field of a protobuf message.
struct Field {
  uint64_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // of a varint, or the bits of a fixed field
  std::string_view bytes;  // of a length-delimited field
};

// Reads the fields of one message in order; borrows its bytes.
class FieldReader {
 public:
  explicit FieldReader(std::string_view message) : rest_(message) {}

  // Empty at the end, and for good once the message is malformed.
  std::optional<Field> next() {
    if (rest_.empty() || malformed_) return std::nullopt;
    std::optional<Field> field = read();
    malformed_ = !field;
    return field;
  }

  bool malformed() const { return malformed_; }

 private:
  std::optional<Field> read() {
    const std::optional<uint64_t> tag = varint();
    if (!tag || *tag >> 3 == 0) return std::nullopt;
    Field field;
    field.number = *tag >> 3;
    field.type = static_cast<WireType>(*tag & 7);
    switch (field.type) {
      case WireType::kVarint:
        return with_value(field, varint());
      case WireType::kFixed64:
        return with_value(field, fixed(8));
      case WireType::kFixed32:
        return with_value(field, fixed(4));
      case WireType::kBytes:
        return with_bytes(field);
    }
    return std::nullopt;  // groups, which no version of the schema has
  }

  static std::optional<Field> with_value(Field field, std::optional<uint64_t> value) {
    if (!value) return std::nullopt;
    field.value = *value;
    return field;
  }

  std::optional<Field> with_bytes(Field field) {
    const std::optional<uint64_t> length = varint();
    if (!length || *length > rest_.size()) return std::nullopt;
    field.bytes = rest_.substr(0, *length);
    rest_.remove_prefix(*length);
    return field;
  }

  std::optional<uint64_t> varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }

  std::optional<uint64_t> fixed(size_t bytes) {  // little endian
    if (rest_.size() < bytes) return std::nullopt;
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
    rest_.remove_prefix(bytes);
    return value;
  }

  std::string_view rest_;
  bool malformed_ = false;
};

// SentencePiece.Type
constexpr uint64_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5;

struct Piece {
  std::string_view text;
  float score = 0;
  uint64_t type = kNormal;
};

struct Trainer {
  uint64_t model_type = 1;  // 1 unigram, 2 BPE, 3 word, 4 characters
  bool byte_fallback = false;
  bool space_as_suffix = false;
  int32_t unk = 0, bos = 1, eos = 2, pad = -1;
};

struct SpaceRules {
  std::string_view character_map;
  bool add_prefix = true;
  bool remove_extra = true;
  bool escape = true;
};

class SentencePieceReader {
 public:
  explicit SentencePieceReader(std::string_view source) { spec_.source = std::string(source); }

  Result<TokenizerSpec> read(std::string_view model) {
    FieldReader fields(model);
    while (const std::optional<Field> field = fields.next()) {
      if (field->type != WireType::kBytes) continue;
      if (field->number == 1) QUERN_TRY(read_piece(field->bytes));
      if (field->number == 2) QUERN_TRY(read_trainer(field->bytes));
      if (field->number == 3) QUERN_TRY(read_space_rules(field->bytes));
    }
    if (fields.malformed()) return malformed("is no SentencePiece model: broken protobuf");
    if (pieces_.empty()) return malformed("is no SentencePiece model: it has no pieces");
    QUERN_TRY(check_supported());
    QUERN_TRY(add_pieces());
    set_pipelines();
    return std::move(spec_);
  }

 private:
  Error malformed(const std::string& what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("{}: {}", spec_.source, what)};
  }

  Error unsupported(const std::string& what) const {
    return {ErrorCode::kUnsupported, fmt::format("{}: {}", spec_.source, what)};
  }

  Result<Unit> read_piece(std::string_view message) {
    Piece piece;
    FieldReader fields(message);
    while (const std::optional<Field> field = fields.next()) {
      if (field->number == 1 && field->type == WireType::kBytes) piece.text = field->bytes;
      if (field->number == 2 && field->type == WireType::kFixed32)
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
      if (field->number == 3 && field->type == WireType::kVarint) piece.type = field->value;
    }
    if (fields.malformed())
      return malformed(fmt::format("piece {}: broken protobuf", pieces_.size()));
    if (!is_valid_utf8(piece.text))
      return malformed(fmt::format("piece {} is not valid UTF-8", pieces_.size()));
    if (pieces_.size() >= static_cast<size_t>(kMaxVocabularyIds))
      return malformed(fmt::format("has more than {} pieces", kMaxVocabularyIds));
    pieces_.push_back(piece);
    return Unit{};
  }

  Result<Unit> read_trainer(std::string_view message) {
    FieldReader fields(message);
    while (const std::optional<Field> field = fields.next()) {
      if (field->type != WireType::kVarint) continue;
      const auto number = static_cast<int32_t>(field->value);
      switch (field->number) {
        case 3:
          trainer_.model_type = field->value;
          break;
        case 24:
          trainer_.space_as_suffix = field->value != 0;
          break;
        case 35:
          trainer_.byte_fallback = field->value != 0;
          break;
        case 40:
          trainer_.unk = number;
          break;
        case 41:
          trainer_.bos = number;
          break;
        case 42:
          trainer_.eos = number;
          break;
        case 43:
          trainer_.pad = number;
          break;
        default:
          break;
      }
    }
    if (fields.malformed()) return malformed("trainer_spec: broken protobuf");
    return Unit{};
  }

  Result<Unit> read_space_rules(std::string_view message) {
    FieldReader fields(message);
    while (const std::optional<Field> field = fields.next()) {
      if (field->number == 2 && field->type == WireType::kBytes)
        spaces_.character_map = field->bytes;
      if (field->type != WireType::kVarint) continue;
      if (field->number == 3) spaces_.add_prefix = field->value != 0;
      if (field->number == 4) spaces_.remove_extra = field->value != 0;
      if (field->number == 5) spaces_.escape = field->value != 0;
    }
    if (fields.malformed()) return malformed("normalizer_spec: broken protobuf");
    return Unit{};
  }

  Result<Unit> check_supported() const {
    if (trainer_.model_type != 2) {
      return unsupported(fmt::format(
          "trainer_spec.model_type is {} (1 unigram, 2 BPE, 3 word, 4 characters); known is 2",
          trainer_.model_type));
    }
    if (trainer_.space_as_suffix)
      return unsupported("trainer_spec.treat_whitespace_as_suffix is not supported");
    if (!spaces_.character_map.empty())
      return unsupported("normalizer_spec.precompiled_charsmap is not supported");
    if (!spaces_.escape)
      return unsupported("normalizer_spec.escape_whitespaces = false is not supported");
    return Unit{};
  }

  Result<Unit> add_pieces() {
    std::vector<float> scores;
    for (size_t id = 0; id < pieces_.size(); ++id) {
      const Piece& piece = pieces_[id];
      const Result<Unit> added = spec_.vocabulary.add(static_cast<int64_t>(id), piece.text);
      if (!added) return malformed(added.error().message);
      scores.push_back(piece.score);
      const bool special = piece.type == kUnknown || piece.type == kControl;
      if ((special || piece.type == kUserDefined) && !piece.text.empty()) {
        AddedToken token;
        token.id = static_cast<int32_t>(id);
        token.content = std::string(piece.text);
        token.special = special;
        spec_.added.push_back(std::move(token));
      }
      if (piece.type == kUnknown && !spec_.unk_token) spec_.unk_token = std::string(piece.text);
    }
    spec_.vocabulary.index();
    std::vector<int32_t> ranks = score_ranks(scores);
    for (size_t id = 0; id < pieces_.size(); ++id) {
      const uint64_t type = pieces_[id].type;
      if (type == kUnknown || type == kControl || type == kUnused) ranks[id] = -1;
    }
    Result<std::vector<Merge>> merges = merges_of_ranks(spec_.vocabulary, ranks);
    if (!merges) return malformed(merges.error().message);
    spec_.merges = std::move(*merges);
    return Unit{};
  }

  void set_pipelines() {
    const auto known = [&](int32_t id) {
      return spec_.vocabulary.has(id) ? std::optional<int32_t>(id) : std::nullopt;
    };
    spec_.unk = known(trainer_.unk);
    spec_.bos = known(trainer_.bos);
    spec_.pad = known(trainer_.pad);
    if (const auto eos = known(trainer_.eos)) spec_.eos = {*eos};
    set_sentencepiece_pipelines(spec_, spaces_.add_prefix ? SpacePrefix::kAdd : SpacePrefix::kNone);
    spec_.byte_fallback = trainer_.byte_fallback;
    if (spaces_.remove_extra) {
      const auto replace = [](const char* expression, const char* content) {
        return Json{
            {"type", "Replace"}, {"pattern", {{"Regex", expression}}}, {"content", content}};
      };
      spec_.normalizer = sequence_step(
          "normalizers", {replace(R"(\A +| +\z)", ""), replace(" +", " "), spec_.normalizer});
    }
    spec_.post_processor = template_processing(spec_, spec_.bos, std::nullopt);
  }

  TokenizerSpec spec_;
  std::vector<Piece> pieces_;  // borrow the model's bytes
  Trainer trainer_;
  SpaceRules spaces_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::from_sentencepiece(std::string_view bytes,
                                                                 std::string_view source) {
  return make_tokenizer(QUERN_TRY(SentencePieceReader(source).read(bytes)));
}

}  // namespace quern
