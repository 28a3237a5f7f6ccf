"""What a run costs: its hours at the machine's price, start and export counted, and whether that price is of today."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from ..records import Finding
from ..records.cost import CostEstimate, TimeEstimate
from ..rules import finding
from .machines import Machine

_HOUR = 3600
_OUT_OF_DATE = 90  # days; GPU clouds change their prices a few times a year


def estimate_cost(time: TimeEstimate, machine: Machine) -> CostEstimate | None:
    """What the whole run costs; None where the machine has no price."""
    if machine.per_hour is None:
        return None
    return CostEstimate(
        per_hour=machine.per_hour,
        total=time.total.times(machine.per_hour / _HOUR),
        price_date=machine.price_date,
        price_source=machine.price_source,
    )


def price_findings(machines: Iterable[Machine], today: datetime.date | None = None) -> Iterator[Finding]:
    """P035, once for each price list that was read too long ago."""
    day = today or datetime.datetime.now(datetime.UTC).date()
    lists = {(one.price_source, one.price_date) for one in machines if one.per_hour is not None and one.price_date}
    for source, date in sorted(lists):
        age = (day - datetime.date.fromisoformat(date)).days
        if age > _OUT_OF_DATE:
            yield finding("P035", "cost", date=date, days=age, source=source)
