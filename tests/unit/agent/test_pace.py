"""How long an agent waits before it dials again."""

from edgekube.agent.pace import FIRST, LAST, REFUSED, Pace


def within(seconds, middle):
    return 0.69 * middle < seconds < 1.31 * middle


def test_quick_at_first_then_a_share_of_the_time_away_and_never_more_than_the_last():
    pace = Pace(100.0)
    pace.connected(101.0)
    pace.lost(200.0)
    assert pace.before_another(200.0) == 0.0
    for away, wanted in ((0.0, FIRST), (0.5, FIRST), (5.0, 1.0), (30.0, 6.0), (600.0, LAST)):
        assert within(pace.after_failure(200.0 + away, refused=False), wanted)
    assert pace.away(203.0) == 3.0


def test_a_refusal_takes_longer():
    assert within(Pace(0.0).after_failure(0.1, refused=True), REFUSED)


def test_a_server_that_restarts_within_ten_seconds_is_tried_within_three():
    pace = Pace(0.0)
    pace.connected(0.0)
    pace.lost(100.0)
    now = 100.0
    while now < 110.0:
        last, now = now, now + pace.after_failure(now, refused=False)
    assert now - last < 3.0


def test_connections_that_come_and_go_slow_down_and_a_good_one_forgives():
    pace, now, waits = Pace(0.0), 0.0, []
    for _ in range(10):
        pace.connected(now)
        now += 0.1
        waits.append(pace.before_another(now))
    assert waits[0] == 0.0
    assert within(waits[3], FIRST * 16)
    assert within(waits[-1], LAST)
    pace.connected(now)
    assert pace.before_another(now + 60) == 0.0
    assert pace.away(now + 60) == 0.0  # while the old one still is there
