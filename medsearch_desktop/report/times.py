"""Points in time as messages write them, to the one form in which they are stored and compared."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_ISO = re.compile(r"(\d{4})-?(\d\d)?-?(\d\d)?(?:[T ](\d\d):?(\d\d)?:?(\d\d)?(?:[.,](\d{1,9}))?)?\s*(Z|[+-]\d\d:?\d\d)?")


def iso(year: int, month: int, day: int, hour: int, minute: int, second: int, micro: int = 0, *, zone: str = "") -> str:
    """Return "YYYY-MM-DDTHH:MM:SS", with six more digits where there are any; "" for no point in time.

    `zone` is "+HHMM" or "" ("Z" is UTC); with one the time is turned into UTC, without it stays as it is.
    """
    try:
        # A leap second is the second before it.
        point = datetime(year, month, day, hour, minute, min(second, 59), micro)
        if zone and zone != "Z":
            hours, minutes = int(zone[1:3]), int(zone[-2:])
            shift = timedelta(hours=hours, minutes=minutes)
            point += shift if zone[0] == "-" else -shift
    except (ValueError, OverflowError):
        return ""
    return point.isoformat()


def from_iso(value: str) -> str:
    """Return what `iso` does of an ISO 8601 or FHIR date or time, however much of it is given; "" where it is none."""
    match = _ISO.fullmatch(value.strip())
    if not match:
        return ""
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups()[:6])
    micro = int((match[7] or "")[:6].ljust(6, "0"))
    return iso(year or 1, month or 1, day or 1, hour or 0, minute or 0, second or 0, micro, zone=match[8] or "")
