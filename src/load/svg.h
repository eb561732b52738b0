// Drawings for a browser: a page of panels with axes and lines, as one SVG file without anything
// from elsewhere, readable on light and dark ground.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace quern {

struct PlotLine {
  std::string name{};
  std::vector<std::pair<double, double>> points{};  // with rising x
};

struct PlotPanel {
  std::string title{}, x_label{}, y_label{};
  std::vector<PlotLine> lines{};  // at most kMaxPlotLines
  double y_max = 0;               // 0: from the points
};

inline constexpr size_t kMaxPlotLines = 4;

// Panels one below the other under the title and the lines of `notes`. Requires finite points,
// none below 0.
std::string svg_page(const std::string& title,
                     const std::vector<std::string>& notes,
                     const std::vector<PlotPanel>& panels);

// Round numbers from 0 to at least `most`, four to nine of them. Requires most > 0.
std::vector<double> axis_ticks(double most);

}  // namespace quern
