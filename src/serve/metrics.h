// Prometheus metrics: histograms that one thread fills and any thread reads, and the text format.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quern {

// Counts of values by upper bound. One writer at a time, any number of readers, no lock: a reader
// may see the count of a value before its sum.
class Histogram {
 public:
  // Borrows the bounds, which rise.
  explicit Histogram(std::span<const double> bounds);

  void observe(double value);

  std::span<const double> bounds() const { return bounds_; }

  // Values at most bounds()[index], or all of them for index == bounds().size().
  int64_t cumulative(size_t index) const;

  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::span<const double> bounds_;
  std::unique_ptr<std::atomic<int64_t>[]> counts_;  // [bounds + 1], not cumulative
  std::atomic<double> sum_{0};
};

using MetricLabels = std::vector<std::pair<std::string_view, std::string_view>>;

// Writes the text exposition format (version 0.0.4). All samples of a family follow its head.
class MetricsText {
 public:
  // `type`: "gauge", "counter" or "histogram".
  void family(std::string_view name, std::string_view type, std::string_view help);

  void sample(std::string_view name, const MetricLabels& labels, double value);
  void histogram(std::string_view name, const MetricLabels& labels, const Histogram& histogram);

  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace quern
