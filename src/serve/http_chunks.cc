#include <algorithm>

#include "serve/http_reader.h"

namespace quern {
namespace {

constexpr int kMaxSizeDigits = 8;  // 4 GiB, far beyond any limit of a body

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

size_t ChunkDecoder::feed(std::string_view bytes, std::string& body) {
  size_t taken = 0;
  while (taken < bytes.size() && !done() && failed_status_ == 0) {
    if (state_ != ChunkState::kData) {
      add(bytes[taken++]);
      continue;
    }
    const size_t count = static_cast<size_t>(std::min<uint64_t>(size_, bytes.size() - taken));
    body.append(bytes.substr(taken, count));
    taken += count;
    size_ -= count;
    if (size_ == 0) state_ = ChunkState::kDataReturn;
  }
  return taken;
}

void ChunkDecoder::add(char c) {
  // Each state but those of the size line expects one byte and names what follows it.
  switch (state_) {
    case ChunkState::kSize:
      return add_to_size(c);
    case ChunkState::kExtension:
      if (++line_bytes_ > limits_.chunk_line_bytes) return fail(400);
      if (c == '\r') {
        state_ = ChunkState::kSizeLineFeed;
      } else if (c != '\t' && (c < 0x20 || c == 0x7f)) {
        return fail(400);
      }
      return;
    case ChunkState::kSizeLineFeed:
      if (c != '\n') return fail(400);
      line_bytes_ = 0;
      digits_ = 0;
      state_ = size_ == 0 ? ChunkState::kLastReturn : ChunkState::kData;
      return;
    case ChunkState::kDataReturn:
      if (c != '\r') return fail(400);
      state_ = ChunkState::kDataLineFeed;
      return;
    case ChunkState::kDataLineFeed:
      if (c != '\n') return fail(400);
      state_ = ChunkState::kSize;
      return;
    case ChunkState::kLastReturn:
      if (c != '\r') return fail(400);  // a trailer
      state_ = ChunkState::kLastLineFeed;
      return;
    case ChunkState::kLastLineFeed:
      if (c != '\n') return fail(400);
      state_ = ChunkState::kDone;
      return;
    case ChunkState::kData:
    case ChunkState::kDone:
    case ChunkState::kFailed:
      return;
  }
}

void ChunkDecoder::add_to_size(char c) {
  const int digit = hex_value(c);
  if (digit >= 0) {
    if (++digits_ > kMaxSizeDigits) return fail(400);
    size_ = size_ * 16 + static_cast<uint64_t>(digit);
    return;
  }
  if (digits_ == 0) return fail(400);
  total_ += size_;
  if (total_ > limits_.body_bytes) return fail(413);
  if (c == '\r') {
    state_ = ChunkState::kSizeLineFeed;
  } else if (c == ';') {
    state_ = ChunkState::kExtension;
  } else {
    fail(400);
  }
}

void ChunkDecoder::fail(int status) {
  state_ = ChunkState::kFailed;
  failed_status_ = status;
}

}  // namespace quern
