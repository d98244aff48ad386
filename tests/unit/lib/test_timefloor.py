"""The clock with a floor: never below the newest time known, and a short glitch is not believed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgekube.lib.clock import BUILD_DATE, FakeClock
from edgekube.lib.timefloor import FlooredClock

DAY = timedelta(days=1)
YEARS = 3 * 365 * 86400.0
NOW = datetime(2027, 5, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_a_first_start_in_1970_goes_on_from_the_build_date(tmp_path: Path) -> None:
    system = FakeClock(EPOCH)
    clock = FlooredClock(tmp_path / "f", system=system)
    assert clock.now() == BUILD_DATE
    system.advance(60)
    assert clock.now() == BUILD_DATE + timedelta(seconds=60)


def test_the_floor_survives_a_reboot_into_the_past_and_a_right_clock_wins(tmp_path: Path) -> None:
    FlooredClock(tmp_path / "f", system=FakeClock(NOW)).believe()
    system = FakeClock(EPOCH)
    clock = FlooredClock(tmp_path / "f", system=system)
    assert clock.behind == NOW - EPOCH
    assert clock.now() == NOW
    system.sleep(10)
    assert clock.now() == NOW + timedelta(seconds=10), "time passes while the machine sleeps"
    system.jump((NOW + DAY - EPOCH).total_seconds())
    assert clock.now() == NOW + DAY + timedelta(seconds=10), "NTP answered"


def test_a_glitch_is_forgotten_unless_it_was_believed(tmp_path: Path) -> None:
    system = FakeClock(NOW)
    clock = FlooredClock(tmp_path / "f", system=system)
    clock.believe()
    system.jump(YEARS)
    clock.keep()
    system.jump(-YEARS)
    assert clock.now() == NOW
    assert FlooredClock(tmp_path / "f", system=system).now() == NOW
    system.jump(YEARS)
    clock.believe()
    system.jump(-YEARS)
    assert clock.now() == NOW + timedelta(seconds=YEARS)


def test_a_server_lifts_the_floor_but_never_lowers_it(tmp_path: Path) -> None:
    system = FakeClock(EPOCH)
    clock = FlooredClock(tmp_path / "f", system=system)
    clock.raise_floor(NOW)
    clock.raise_floor(NOW - DAY)
    assert clock.now() == NOW
    assert FlooredClock(tmp_path / "f", system=FakeClock(EPOCH)).now() == NOW, "far ahead: written at once"
    before = (tmp_path / "f").stat().st_mtime_ns
    system.advance(3600)
    clock.raise_floor(NOW + timedelta(hours=2))
    assert (tmp_path / "f").stat().st_mtime_ns == before, "a little ahead: the disk is left alone"


def test_a_damaged_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\x00yesterday")
    assert FlooredClock(tmp_path / "f", system=FakeClock(NOW)).now() == NOW


def test_age_is_what_really_passed_whatever_the_clock_did(tmp_path: Path) -> None:
    system = FakeClock(NOW)
    clock = FlooredClock(tmp_path / "f", system=system)
    before = clock.now()
    system.advance(10)
    system.jump(YEARS)
    during = clock.now()
    system.advance(600)
    system.jump(-YEARS)
    after = clock.now()
    system.advance(5)
    assert [round(clock.age(moment)) for moment in (before, during, after)] == [615, 605, 5]
    assert round(clock.age(clock.now() + timedelta(seconds=30))) == -30
    assert (clock.jumps, round(clock.last_jump)) == (2, -YEARS)


def test_times_of_other_programs_are_read_by_the_clock_they_saw(tmp_path: Path) -> None:
    system = FakeClock(EPOCH)
    clock = FlooredClock(tmp_path / "f", system=system)
    started = system.now()
    ours = clock.now()
    system.advance(100)
    assert round(clock.age(started, foreign=True)) == 100
    system.jump((NOW - EPOCH).total_seconds())
    system.advance(1)
    assert round(clock.age(started, foreign=True)) == 101
    assert round(clock.age(ours)) == 101


def test_a_jump_is_believed_after_a_while_and_until_then_both_times_count(tmp_path: Path) -> None:
    system = FakeClock(NOW)
    clock = FlooredClock(tmp_path / "f", system=system)
    assert clock.span() == (NOW, NOW)
    system.jump(YEARS)
    system.advance(1)
    steady = NOW + timedelta(seconds=1)
    assert clock.span() == (steady, steady + timedelta(seconds=YEARS))
    clock.believe()
    assert clock.span() == (clock.now(), clock.now())


def test_gentle_corrections_are_no_jumps(tmp_path: Path) -> None:
    system = FakeClock(NOW)
    clock = FlooredClock(tmp_path / "f", system=system)
    for _ in range(3):
        system.jump(0.5)
        clock.now()
    assert clock.jumps == 0
