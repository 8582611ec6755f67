"""Text for people: aligned tables, dollars, times and spans of time."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

_MICROS = 1_000_000
_DECIMALS = 6


def aligned(rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,), indent: int = 0) -> list[str]:
    """Lines of columns two spaces apart; columns not in ``left`` are set to the right."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        (
            " " * indent
            + "  ".join(
                text.ljust(width) if place in left else text.rjust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in cells
    ]


def dollars(micros: int) -> str:
    """USD micros as dollars: cents, more decimals where there are more, all six below a dollar."""
    whole, rest = divmod(micros, _MICROS)
    fraction = f"{rest:0{_DECIMALS}d}"
    if whole or not rest:
        fraction = fraction[:2] + fraction[2:].rstrip("0")
    return f"${whole:,}.{fraction}"


def dollars_column(amounts: Sequence[int | None]) -> list[str]:
    """Dollars for a column set to the right: the decimal points stand in one line. None: unlimited."""
    texts = ["unlimited" if micros is None else dollars(micros) for micros in amounts]
    decimals = [len(text.partition(".")[2]) for text in texts]
    return [
        text if micros is None else text + " " * (max(decimals) - own)
        for micros, text, own in zip(amounts, texts, decimals, strict=True)
    ]


def percent_cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f} %"


def span(duration: timedelta) -> str:
    """How long, in the two largest units: ``10 h 59 min``."""
    secs = max(int(duration.total_seconds()), 0)
    days, secs = divmod(secs, 86_400)
    hours, secs = divmod(secs, 3600)
    minutes, secs = divmod(secs, 60)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    while len(units) > 1 and not units[0][0]:
        units.pop(0)
    return " ".join(f"{count} {unit}" for place, (count, unit) in enumerate(units[:2]) if count or not place)


def clock_time(moment: datetime, zone: tzinfo, zone_name: str) -> str:
    """A moment on the org's clock: ``2026-01-16 00:00 (Europe/Berlin)``."""
    local = moment.astimezone(zone)
    seconds = f":{local:%S}" if local.second else ""
    return f"{local:%Y-%m-%d %H:%M}{seconds} ({zone_name})"


def iso(moment: datetime) -> str:
    """A moment as JSON has it: ISO 8601 in UTC, to the second."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def day_text(name: str) -> str:
    """An org day for people: ``2026-01-15``."""
    return f"{name[:4]}-{name[4:6]}-{name[6:]}"


def one_line(text: str) -> str:
    """Text that somebody else wrote, safe to show: no line breaks, no terminal sequences."""
    return "".join(char if char.isprintable() else "?" for char in text)
