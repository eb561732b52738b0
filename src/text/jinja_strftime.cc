#include "text/jinja_strftime.h"

#include <optional>
#include <string>

#include <fmt/format.h>

namespace quern::jinja {
namespace {

constexpr std::string_view kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};
constexpr std::string_view kMonths[] = {"January",   "February", "March",    "April",
                                        "May",       "June",     "July",     "August",
                                        "September", "October",  "November", "December"};

// A caller's tm may hold anything.
std::string_view day(const std::tm& t) { return kDays[static_cast<unsigned>(t.tm_wday) % 7]; }
std::string_view month(const std::tm& t) { return kMonths[static_cast<unsigned>(t.tm_mon) % 12]; }

int64_t year(const std::tm& t) { return int64_t{t.tm_year} + 1900; }

int hour12(const std::tm& t) { return t.tm_hour % 12 == 0 ? 12 : t.tm_hour % 12; }

// ISO 8601: weeks start on Monday and belong to the year of their Thursday.
struct IsoWeek {
  int64_t year;
  int week;
};

bool leap(int64_t y) { return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0); }

IsoWeek iso_week(const std::tm& t) {
  const int weekday = (t.tm_wday + 6) % 7;  // Monday is 0
  const int week = (t.tm_yday - weekday + 10) / 7;
  if (week < 1) {
    const int last_year_day = t.tm_yday + (leap(year(t) - 1) ? 366 : 365);
    return {year(t) - 1, (last_year_day - weekday + 10) / 7};
  }
  const int days = leap(year(t)) ? 366 : 365;
  if (week == 53 && t.tm_yday - weekday + 3 >= days) return {year(t) + 1, 1};
  return {year(t), week};
}

std::optional<std::string> numeric(char conversion, const std::tm& t) {
  switch (conversion) {
    case 'C':
      return fmt::format("{:02}", year(t) / 100);
    case 'd':
      return fmt::format("{:02}", t.tm_mday);
    case 'e':
      return fmt::format("{:2}", t.tm_mday);
    case 'f':
      return "000000";
    case 'g':
      return fmt::format("{:02}", iso_week(t).year % 100);
    case 'G':
      return fmt::format("{}", iso_week(t).year);
    case 'H':
      return fmt::format("{:02}", t.tm_hour);
    case 'I':
      return fmt::format("{:02}", hour12(t));
    case 'j':
      return fmt::format("{:03}", int64_t{t.tm_yday} + 1);
    case 'k':
      return fmt::format("{:2}", t.tm_hour);
    case 'l':
      return fmt::format("{:2}", hour12(t));
    case 'm':
      return fmt::format("{:02}", int64_t{t.tm_mon} + 1);
    case 'M':
      return fmt::format("{:02}", t.tm_min);
    case 'S':
      return fmt::format("{:02}", t.tm_sec);
    case 'u':
      return fmt::format("{}", t.tm_wday == 0 ? 7 : t.tm_wday);
    case 'U':
      return fmt::format("{:02}", (int64_t{t.tm_yday} + 7 - t.tm_wday) / 7);
    case 'V':
      return fmt::format("{:02}", iso_week(t).week);
    case 'w':
      return fmt::format("{}", t.tm_wday);
    case 'W':
      return fmt::format("{:02}", (int64_t{t.tm_yday} + 7 - (int64_t{t.tm_wday} + 6) % 7) / 7);
    case 'y':
      return fmt::format("{:02}", year(t) % 100);
    case 'Y':
      return fmt::format("{}", year(t));
    default:
      return std::nullopt;
  }
}

std::optional<std::string> worded(char conversion, const std::tm& t) {
  switch (conversion) {
    case 'a':
      return std::string(day(t).substr(0, 3));
    case 'A':
      return std::string(day(t));
    case 'b':
    case 'h':
      return std::string(month(t).substr(0, 3));
    case 'B':
      return std::string(month(t));
    case 'n':
      return "\n";
    case 'p':
      return t.tm_hour < 12 ? "AM" : "PM";
    case 'P':
      return t.tm_hour < 12 ? "am" : "pm";
    case 't':
      return "\t";
    case 'z':
    case 'Z':
      return "";
    case '%':
      return "%";
    default:
      return std::nullopt;
  }
}

// Conversions that stand for several others.
std::string_view composed(char conversion) {
  switch (conversion) {
    case 'c':
      return "%a %b %e %H:%M:%S %Y";
    case 'D':
    case 'x':
      return "%m/%d/%y";
    case 'F':
      return "%Y-%m-%d";
    case 'r':
      return "%I:%M:%S %p";
    case 'R':
      return "%H:%M";
    case 'T':
    case 'X':
      return "%H:%M:%S";
    default:
      return {};
  }
}

std::optional<std::string> converted(char conversion, const std::tm& time) {
  if (auto text = worded(conversion, time)) return text;
  return numeric(conversion, time);
}

// %-d and its like: glibc's flag for a number without padding.
std::string without_padding(std::string text) {
  while (text.size() > 1 && (text[0] == '0' || text[0] == ' ')) text.erase(0, 1);
  return text;
}

}  // namespace

Result<Unit> append_time(TextBuilder& out, const Str& format, const std::tm& time) {
  const std::string_view text = format.bytes;
  for (size_t at = 0; at < text.size();) {
    const size_t percent = std::min(text.find('%', at), text.size());
    out.append(format, at, percent);
    if (percent == text.size()) break;
    at = percent + 1;
    const bool bare = at < text.size() && text[at] == '-';
    if (bare) ++at;
    if (at == text.size()) return template_error("strftime_now(): the format ends in %");
    const char conversion = text[at++];
    if (const std::string_view parts = composed(conversion); !parts.empty()) {
      QUERN_TRY(append_time(out, Str{parts, {}, 0}, time));
      continue;
    }
    std::optional<std::string> value = converted(conversion, time);
    if (!value) {
      return template_error(fmt::format("strftime_now(): unknown conversion '%{}'", conversion));
    }
    out.append_for(bare ? without_padding(*value) : *value, format, percent);
  }
  return Unit{};
}

}  // namespace quern::jinja
