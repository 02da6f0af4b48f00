from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bmc.llm.errors import retry_after, wait_before


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),  # gone by
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
    ],
)
def test_what_headers_ask_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC).timestamp()
    assert retry_after(headers, now) == seconds


def test_waits_grow_and_are_jittered() -> None:
    for retry, longest in enumerate([0.5, 1, 2, 4, 8, 16, 32, 60, 60]):
        waits = {wait_before(retry, None) for _ in range(50)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)


def test_waits_are_no_shorter_than_asked_for() -> None:
    for after, most in ((0.001, 0.002), (3.0, 4.0), (600.0, 601.0)):
        assert all(after <= wait_before(5, after) <= most for _ in range(50))
    assert 0.25 <= wait_before(0, 0.0) <= 0.5  # "now" is no answer to a rate that is too high
