// What unpacking a group needs whatever becomes of its weights, over the lanes of linear_body.inl.

// What is taken off each code to make it a signed byte.
inline B signed_base(const Segment& segment, const std::byte* record) {
  if (segment.centred == 0 || segment.offsets == Offsets::kMinima) return b_set(segment.code_base);
  if (segment.offsets == Offsets::kOneZero) return b_set(segment.zero);
  return b_repeat(record + 2 * kPanelRows);
}

// Where the numbers of one group go: 16 each.
struct UnpackedRecord {
  float* scales;
  float* minima;   // kMinima
  int32_t* pairs;  // uncentred
};

inline void unpack_record(const Segment& segment,
                          const std::byte* record,
                          const UnpackedRecord& to) {
  f_store(to.scales, f_mul(f_from_f16(record), f_set(segment.scale_unit)));
  const std::byte* offsets = record + 2 * kPanelRows;
  if (segment.offsets == Offsets::kMinima) {
    f_store(to.minima, f_mul(f_from_f16(offsets), f_set(segment.minimum_unit)));
  }
  if (segment.centred != 0) return;
  const I zero = segment.offsets == Offsets::kZeros ? i_from_u8(offsets) : i_set(segment.zero);
  const I r = i_sub(zero, i_set(segment.code_base));
  i_store(to.pairs, i_or(i_and(r, i_set(0xffff)), i_shift_left<16 + 7>(r)));
}
