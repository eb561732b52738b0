#include "load/svg.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include <fmt/format.h>

#include "base/check.h"

namespace quern {
namespace {

constexpr double kWidth = 860, kPanelHeight = 300;
constexpr double kLeft = 80, kRight = 24, kTop = 44, kBottom = 52;  // around the axes of a panel
constexpr double kTitleHeight = 44, kNoteHeight = 20, kFoot = 12;

// Four hues that stay apart for the colour-blind and have contrast on both grounds.
constexpr const char* kStyle = R"(<style>
:root { --ground: #ffffff; --ink: #1b1f24; --faint: #57606a; --grid: #d8dee4;
  --line-0: #0969da; --line-1: #bc4c00; --line-2: #1a7f37; --line-3: #8250df; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #30363d;
    --line-0: #58a6ff; --line-1: #f0883e; --line-2: #3fb950; --line-3: #bc8cff; } }
text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.title { font-size: 18px; font-weight: 600; } .panel { font-weight: 600; }
.faint { fill: var(--faint); font-size: 12px; } .ground { fill: var(--ground); }
.grid { stroke: var(--grid); stroke-width: 1; } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line-0 { stroke: var(--line-0); } .line-1 { stroke: var(--line-1); }
.line-2 { stroke: var(--line-2); } .line-3 { stroke: var(--line-3); }
</style>
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

struct Place {
  double x, y;
};

void add_text(const Place& at,
              const char* style,
              const char* anchor,
              std::string_view text,
              std::string* out) {
  fmt::format_to(std::back_inserter(*out),
                 "<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\" text-anchor=\"{}\">{}</text>\n",
                 at.x, at.y, style, anchor, escaped(text));
}

void add_grid_line(const Place& from, const Place& to, std::string* out) {
  fmt::format_to(std::back_inserter(*out),
                 "<path class=\"grid\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"/>\n", from.x, from.y,
                 to.x, to.y);
}

// The axes of one panel and where a point lies on them.
class Axes {
 public:
  Axes(const PlotPanel& panel, double top) : top_(top + kTop) {
    double x_most = 0, y_most = panel.y_max;
    for (const PlotLine& line : panel.lines) {
      for (const auto& [x, y] : line.points) {
        QUERN_CHECK(std::isfinite(x) && std::isfinite(y) && x >= 0 && y >= 0);
        x_most = std::max(x_most, x);
        if (panel.y_max == 0) y_most = std::max(y_most, y);
      }
    }
    x_ticks_ = axis_ticks(x_most > 0 ? x_most : 1);
    y_ticks_ = axis_ticks(y_most > 0 ? y_most : 1);
  }

  Place place(double x, double y) const {
    return {kLeft + x / x_ticks_.back() * (kWidth - kLeft - kRight),
            bottom() - y / y_ticks_.back() * (bottom() - top_)};
  }

  void draw(std::string* out) const {
    for (const double x : x_ticks_) {
      const Place foot = place(x, 0);
      add_grid_line(foot, {foot.x, top_}, out);
      add_text({foot.x, foot.y + 18}, "faint", "middle", fmt::format("{:g}", x), out);
    }
    for (const double y : y_ticks_) {
      const Place left = place(0, y);
      add_grid_line(left, {kWidth - kRight, left.y}, out);
      add_text({left.x - 8, left.y + 4}, "faint", "end", fmt::format("{:g}", y), out);
    }
  }

 private:
  double bottom() const { return top_ - kTop + kPanelHeight - kBottom; }

  double top_;
  std::vector<double> x_ticks_, y_ticks_;
};

void add_panel(const PlotPanel& panel, double top, std::string* out) {
  QUERN_CHECK(panel.lines.size() <= kMaxPlotLines);
  const Axes axes(panel, top);
  add_text({kLeft, top + 20}, "panel", "start", panel.title, out);
  add_text({kLeft, top + 37}, "faint", "start", panel.y_label, out);
  add_text({kWidth - kRight, top + kPanelHeight - 18}, "faint", "end", panel.x_label, out);
  axes.draw(out);
  double legend = kWidth - kRight;
  for (size_t i = panel.lines.size(); i-- > 0;) {
    const PlotLine& line = panel.lines[i];
    std::string path;
    for (const auto& [x, y] : line.points) {
      const Place at = axes.place(x, y);
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', at.x, at.y);
    }
    if (!path.empty()) {
      fmt::format_to(std::back_inserter(*out), "<path class=\"line line-{}\" d=\"{}\"/>\n", i,
                     path);
    }
    add_text({legend, top + 20}, "faint", "end", line.name, out);
    legend -= 7.0 * static_cast<double>(line.name.size()) + 12;
    fmt::format_to(std::back_inserter(*out),
                   "<path class=\"line line-{}\" d=\"M{:.1f} {:.1f}h20\"/>\n", i, legend - 14,
                   top + 16);
    legend -= 30;
  }
}

}  // namespace

std::vector<double> axis_ticks(double most) {
  QUERN_CHECK(most > 0);
  const double rough = most / 6;
  const double magnitude = std::pow(10, std::floor(std::log10(rough)));
  const double share = rough / magnitude;  // 1 to 10
  const double step = (share <= 1 ? 1 : share <= 2 ? 2 : share <= 5 ? 5 : 10) * magnitude;
  std::vector<double> ticks{0};
  while (ticks.back() < most * (1 - 1e-9)) {
    ticks.push_back(static_cast<double>(ticks.size()) * step);
  }
  return ticks;
}

std::string svg_page(const std::string& title,
                     const std::vector<std::string>& notes,
                     const std::vector<PlotPanel>& panels) {
  const double head = kTitleHeight + kNoteHeight * static_cast<double>(notes.size());
  const double height = head + kPanelHeight * static_cast<double>(panels.size()) + kFoot;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" role=\"img\">\n<title>{2}</title>\n{3}"
      "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
      kWidth, height, escaped(title), kStyle);
  add_text({kLeft, 32}, "title", "start", title, &out);
  for (size_t i = 0; i < notes.size(); ++i) {
    add_text({kLeft, 52 + kNoteHeight * static_cast<double>(i)}, "faint", "start", notes[i], &out);
  }
  for (size_t i = 0; i < panels.size(); ++i) {
    add_panel(panels[i], head + kPanelHeight * static_cast<double>(i), &out);
  }
  return out + "</svg>\n";
}

}  // namespace quern
