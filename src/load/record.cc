#include "load/record.h"

namespace quern {

const char* outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kOk:
      return "ok";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kRefused:
      return "refused";
    case Outcome::kDisconnected:
      return "disconnected";
    case Outcome::kRebuffed:
      return "rebuffed";
    case Outcome::kInterrupted:
      return "interrupted";
  }
  return "";
}

}  // namespace quern
