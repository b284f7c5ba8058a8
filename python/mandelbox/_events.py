"""Events of a run."""

from __future__ import annotations

import json
import os
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Event"]

_decode = json.JSONDecoder().decode
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Event:
    """A fact about a run, as in its ``events.jsonl``.

    Keys of its kind are attributes too: ``event.outcome`` is ``event.fields["outcome"]``, and a key
    that the event does not have is None.

    Attributes:
        seq: Number of the event, from 0.
        time: Time at which it was recorded (aware, UTC).
        kind: Kind of the event, such as ``call_finished``. New versions can have new kinds.
        fields: All keys of its kind.

    Example:
        >>> def on_event(event: Event) -> None:
        ...     if event.kind == "call_finished":
        ...         print(event.item, event.outcome)
    """

    seq: int
    time: datetime
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.fields.get(name)

    @classmethod
    def from_line(cls, line: bytes | str) -> Event:
        """Read a line of ``events.jsonl``.

        Raises:
            ValueError: It is no event.
        """
        fields = _decode(line if isinstance(line, str) else line.decode())
        try:
            seq, time, kind = fields.pop("seq"), fields.pop("time"), fields.pop("event")
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not an event: {line!r}") from error
        fields.pop("session", None)
        fields.pop("crc", None)
        # Faster than the constructor of a frozen class: there can be millions of events.
        event = object.__new__(cls)
        event.__dict__.update(seq=seq, time=_parse_time(time), kind=kind, fields=fields)
        return event


def _parse_time(text: str) -> datetime:
    # Python 3.10 does not read the `Z`.
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


def tail(path: str, has_ended: Callable[[], bool]) -> Iterator[Event]:
    """Read events from a file that a program writes, until the program has ended.

    The program never waits for its readers, because they read a file and not a pipe.

    Args:
        path: The file, which may not exist yet.
        has_ended: Returns True if nothing will be written any more.
    """
    for batch in tail_batches(path, has_ended):
        if batch is None:
            continue
        yield from batch


def tail_batches(
    path: str, has_ended: Callable[[], bool], *, waits: bool = True
) -> Iterator[list[Event] | None]:
    """Read events like :func:`tail`, several at a time.

    Args:
        path: The file, which may not exist yet.
        has_ended: Returns True if nothing will be written any more.
        waits: True to sleep while there is nothing new, False to yield None.
    """
    file = None
    rest = b""
    pause = _FIRST_PAUSE_S
    try:
        while True:
            # Ask before reading: what was written until then is read below.
            ended = has_ended()
            if file is None and os.path.exists(path):
                file = open(path, "rb")  # noqa: SIM115
            chunk = file.read(_CHUNK_BYTES) if file is not None else b""
            if chunk:
                pause = _FIRST_PAUSE_S
                *lines, rest = (rest + chunk).split(b"\n")
                yield [Event.from_line(line) for line in lines]
            elif ended:
                return
            elif waits:
                clock.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)
            else:
                yield None
    finally:
        if file is not None:
            file.close()
