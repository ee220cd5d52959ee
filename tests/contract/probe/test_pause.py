"""A pause of replay on a real standby, beside the other tests of PostgreSQL because it takes its time."""

import pytest

from lab.probe.certainty import Certainty
from lab.probe.instrument import Limits, run
from lab.probe.postgresql import node
from tests.support.databases.postgresql import Servers

pytestmark = [pytest.mark.needs("minutes"), pytest.mark.xdist_group("pause of replay"), pytest.mark.integration]
PAUSE_SECONDS = 3.0


@pytest.mark.parametrize("postgresql", ["wheel"], indirect=True)
def test_a_pause_of_replay_is_seen_for_as_long_as_it_lasts(postgresql: Servers) -> None:
    """25 s, of which replay stands still for 3 s: a closed loop would make one write in that time."""
    primary, fast = (node(server.address(), None) for server in (postgresql.primary, postgresql.fast))
    moments: list[float] = []

    def pause_and_resume(writes: int) -> None:
        if len(moments) < 1 <= writes // 100:
            postgresql.fast.sql("SELECT pg_wal_replay_pause()")
            moments.append(writes / 10)
        elif len(moments) == 1 and writes / 10 >= moments[0] + PAUSE_SECONDS:
            postgresql.fast.sql("SELECT pg_wal_replay_resume()")
            moments.append(writes / 10)

    try:
        found = run(primary, [fast], Limits(seconds=25.0), on_step=pause_and_resume)
    finally:
        primary.close()
        fast.close()
    assert (found.ended, found.not_removed, len(moments)) == ("", "", 2)
    truth = (moments[1] - moments[0] - 1.0) / 25.0
    bounds = Certainty([one.window for one in found.replicas[0].brackets]).stale(1.0)
    print(f"\ntruth {truth:.3f}, {bounds}")
    assert None not in bounds
    assert (bounds.at_least or 0) - 0.01 <= truth <= (bounds.at_most or 0) + 0.01, "a write more or less"
    assert (bounds.low or 0) <= truth <= (bounds.high or 0)
