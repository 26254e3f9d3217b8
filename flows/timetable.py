"""When a grid runs by the clock: intervals, cron expressions, and the next date of a schedule."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

from prefect.schedules import Cron, Interval, Schedule

from flows.errors import GridError
from flows.quantities import seconds

_LEAST_SECONDS = 10  # between two runs: the serving process asks for those that are due every 5 s
_SECONDS_TO_FIRST = 5.0


def interval_of(every: str) -> timedelta:
    """An interval such as `90s`, `15m` or `1.5h`; GridError for anything else."""
    try:
        length = seconds(every)
    except ValueError as error:
        raise GridError(f"--every {every}: {error}") from None
    if length < _LEAST_SECONDS:
        raise GridError(f"--every {every}: must be {_LEAST_SECONDS}s at least")
    return timedelta(seconds=length)


def schedule_of(cron: str | None, every: str | None, timezone: str | None) -> Schedule:
    """The schedule that is asked for; GridError where it is none, or never fires.

    Cron is read in a timezone such as `Europe/Berlin`, UTC unless given; an interval begins now.
    """
    if (cron is None) == (every is None):
        raise GridError('say when: --cron "0 2 * * *" or --every 15m, one of them')
    if every is not None:
        if timezone is not None:
            raise GridError("--timezone goes with --cron: an interval is the same everywhere")
        first = datetime.now(UTC) + timedelta(seconds=_SECONDS_TO_FIRST)
        return Interval(interval_of(every), anchor_date=first)
    assert cron is not None
    if timezone is not None and timezone not in available_timezones():
        raise GridError(f"--timezone {timezone}: no such timezone; write it as Europe/Berlin")
    try:
        schedule = Cron(cron, timezone=timezone or "UTC")
        fires = next_run(schedule) is not None
    except ValueError:
        raise GridError(
            f'--cron "{cron}": not a cron expression; it has five fields, minute, hour, day of '
            f'month, month and day of week: "0 2 * * *" is every night at two'
        ) from None
    if not fires:
        raise GridError(f'--cron "{cron}": there is no such date, it would never run')
    return schedule


def next_run(schedule: Schedule) -> datetime | None:
    """When a schedule fires next; None if it never does."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    form: CronSchedule | IntervalSchedule
    if schedule.cron is not None:
        form = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    else:
        form = IntervalSchedule(interval=schedule.interval, anchor_date=schedule.anchor_date)
    try:
        dates = asyncio.run(form.get_dates(1))
    except ValueError:  # it looked through the years to come
        return None
    return dates[0] if dates else None
