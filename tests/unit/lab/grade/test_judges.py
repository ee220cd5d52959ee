"""The judges of a graded program, on correct runs, and on runs with the faults that consumers have."""

from dataclasses import replace

import pytest

from lab.grade.judges import judge, passed
from lab.grade.record import Setting
from tests.unit.lab.grade.run import KEYS, Run, at, correct


def killed(level: int) -> Run:
    """Five writes, and a kill; 1-5 is delivered and pending."""
    run = Run(level)
    for number in range(1, 6):
        run.write(number * 10)
        run.poll(number * 10 + 5, f"1-{number}")
    run.mark(3214, "replica", "acknowledged", "1-3", "1-4")
    run.die(3215, "1-5", "1-4", "1-5")
    return run


def delayed() -> Run:
    """A hundred writes, each shown 305 ms later, by a delay of 300 ms."""
    run = Run(5)
    run.settings = [Setting(at(0), at(1), 300)]
    for number in range(1, 101):
        run.write(number * 100)
    run.poll(50, "1-0")
    for number in range(1, 101):
        run.poll(number * 100 + 295, f"1-{number - 1}")
        run.poll(number * 100 + 305, f"1-{number}")
    return run


@pytest.mark.parametrize("level", [1, 2, 4, 7, 8])
def test_a_correct_run_passes(level: int) -> None:
    assert correct(level).words == ""
    assert passed(judge(correct(level).record))


@pytest.mark.parametrize("level", range(1, 9))
def test_a_run_in_which_nothing_was_seen_is_not_passed(level: int) -> None:
    assert not passed(judge(Run(level).record))


@pytest.mark.parametrize("level", [1, 2, 3, 4, 6, 7, 8])
def test_a_program_that_does_not_answer_at_the_end_fails(level: int) -> None:
    run = correct(level)
    run.operations = [found for found in run.operations if found.kind != "final"]
    run.more["unanswered"] = dict.fromkeys(KEYS, "connection refused")
    found = {one.guarantee: one.words for one in judge(run.record)}
    said = "at the end GET /data/k1 was not answered: connection refused"
    assert found.get("complete", found.get("serves")) == said


def test_a_key_that_was_never_written_must_be_missing() -> None:
    run = correct(1)
    run.read(1900, "1-8", "never", value="?", version=3)
    assert run.words == 'serves: at 1.901 s, at 1-8, it shows version 3 of never, "?", where the log has nothing'


def test_entries_that_stay_pending_fail() -> None:
    run = correct(1)
    run.more["pending"] = tuple(run.ledger.at)
    said = "at the end 1-1 (set k1) is delivered, but not acknowledged, and 7 others"
    assert run.words == f"serves: {said}"


def test_a_program_without_a_group_fails() -> None:
    run = correct(1)
    run.more["pending"] = None
    assert run.words == "serves: it has no consumer group mine, so nothing is acknowledged"


def test_a_program_that_stops_applying_is_stalled() -> None:
    run = correct(2)
    run.write(1000)
    assert run.words == "complete: at the end it is at 1-8 since 0.851 s, and the log at 1-9"


def test_a_key_without_an_answer_at_the_end_fails() -> None:
    run = correct(2)
    del run.operations[-1]
    run.more["unanswered"] = {"ü": "GET /data/%C3%BC was answered with 500"}
    said = "at the end GET /data/%C3%BC was not answered: GET /data/%C3%BC was answered with 500"
    assert run.words == f"complete: {said}"


def test_a_key_that_is_not_decoded_is_named() -> None:
    run = correct(1)
    for read in [found for found in run.operations if found.key == "ü"]:
        run.operations[run.operations.index(read)] = replace(read, value=None, version=0)
    assert run.words.endswith(": it never showed it; is the key percent-decoded in GET /data/%C3%BC?")


def test_the_version_of_the_position_in_place_of_that_of_the_key_is_named() -> None:
    run = correct(1)
    run.read(1900, "1-8", "k1", version=8)
    assert run.words.endswith("this is the version of the position, not of the entry that set the key")


@pytest.mark.parametrize("where", ["1-9", "2-0"])
def test_a_position_that_the_log_does_not_have_fails(where: str) -> None:
    run = correct(2)
    run.poll(900, where)
    assert run.words == f"content: at 0.901 s it was at {where}, which the log does not have"


def test_an_answer_before_the_first_position_is_not_judged() -> None:
    run = correct(2)
    run.poll(1, "0-0")
    run.read(2, "0-9", "k1", value="of an earlier level", version=9)
    assert run.words == ""


def test_applying_out_of_order_fails_level_2() -> None:
    """In parallel: 1-6 is applied and shown as the position, while 1-5 is not."""
    run = correct(2)
    run.read(655, "1-6", "k1", value="v1", version=1)
    shown = 'at 0.656 s, at 1-6, it shows version 1 of k1, "v1", where the log has "v5" of 1-5'
    assert run.words == f"content: {shown}: 1-5 is not applied, although 1-6 is"


def test_showing_an_entry_before_its_position_fails_level_2() -> None:
    run = correct(2)
    run.read(455, "1-4", "k1", value="v5", version=5)
    assert run.words.endswith('where the log has "v1" of 1-1: 1-5 is shown before its position is reached')


def test_a_delete_that_is_not_applied_is_named() -> None:
    run = Run(2)
    run.write(10, "k1")
    run.write(20, "k1", delete=True)
    run.end(100, value="v1", version=1)
    assert run.words.endswith("where the log has nothing: 1-2 is not applied, although its position is stored")


def test_a_position_that_goes_back_fails_level_2() -> None:
    run = correct(2)
    run.poll(900, "1-7")
    assert run.words == "regressed: at 0.861 s it was at 1-8, and at 0.901 s at 1-7 again"


def test_a_restart_that_loses_nothing_passes_level_3() -> None:
    run = killed(3)
    run.end(5000)
    assert run.words == ""


def test_acknowledging_before_storing_fails_level_3() -> None:
    run = killed(3)
    run.forget("ü")
    run.end(5000)
    said = "1-4 was acknowledged at 3.214 s; killed at 3.215 s; after the restart key ü is missing"
    assert run.words == f"durable: {said}"


def test_the_last_acknowledged_entry_that_is_missing_is_named() -> None:
    run = killed(3)
    for key in ("k2", "a/b", "ü"):
        run.forget(key)
    assert "1-4 was acknowledged" in run.words


def test_an_old_value_after_the_restart_fails_level_3() -> None:
    run = Run(3)
    run.write(10, "k1", "old")
    run.write(20, "k1", "new")
    run.die(100, "1-2", "1-2")
    run.forget("k1", value="old", version=1)
    assert run.words.endswith('after the restart key k1 still has version 1, "old"')


@pytest.mark.parametrize(("version", "fails"), [(0, False), (1, True), (7, False)])
def test_a_delete_has_to_be_durable(version: int, fails: bool) -> None:
    run = Run(3)
    run.write(10, "k1", "old")
    run.write(20, "k1", delete=True)
    run.die(100, "1-2", "1-2")
    run.forget("k1", value="old" if version else None, version=version)
    run.end(500)
    assert ("key k1, which that deletes, is still there" in run.words) == fails


def test_a_key_that_a_later_unacknowledged_delete_removed_passes_level_3() -> None:
    run = Run(3)
    run.write(10, "k1")
    run.write(20, "k1", delete=True)
    run.die(100, "1-2", "1-2", "1-2")
    run.end(500)
    assert run.words == ""


def test_a_store_in_memory_fails_level_3_without_any_key_that_was_read() -> None:
    run = killed(3)
    run.deaths[-1] = run.deaths[-1]._replace(reads=[], first=run.deaths[-1].first._replace(position=None, words="503"))
    assert run.words.endswith("1-4 was acknowledged at 3.214 s; killed at 3.215 s; after the restart no answer: 503")


def test_a_position_before_the_acknowledged_entries_fails_level_3() -> None:
    run = killed(3)
    run.deaths[-1] = run.deaths[-1]._replace(first=run.poll(3316, "1-2"))
    assert run.words.endswith("after the restart it was at 1-2")


def test_versions_that_are_too_high_pass_level_3_and_fail_level_4() -> None:
    for level, said in ((3, ""), (4, "something was applied twice, and counted twice")):
        run = killed(level)
        run.end(5000, version=7)
        assert run.words.endswith(said)
        assert bool(run.words) == bool(said)


def test_a_change_that_is_lost_for_good_fails_level_3() -> None:
    run = killed(3)
    run.end(5000, version=1, value="v1")
    assert run.words.startswith("complete: at the end, at 1-5, it shows version 1 of k1")


def test_new_entries_before_pending_ones_fail_level_4() -> None:
    run = killed(4)
    run.write(3400, "k2")
    run.read(3500, "1-6", "k1", value="v1", version=1)
    run.end(5000)
    said = "1-5 is not applied, although 1-6 is; it was pending when the program was killed at 3.215 s"
    assert run.words.endswith(said)


def test_a_position_that_is_stored_without_its_data_fails_level_4() -> None:
    run = killed(4)
    run.read(3400, "1-5", "k1", value="v1", version=1)
    run.end(5000)
    assert run.words.endswith(
        "1-5 is not applied, although its position is stored; it was pending when the program was killed at 3.215 s"
    )


def test_going_back_after_a_kill_names_the_kill() -> None:
    run = killed(4)
    run.end(5000)
    assert run.words == "regressed: at 0.056 s it was at 1-5, and at 3.316 s at 1-4 again; it was killed at 3.215 s"


def test_a_delay_that_is_kept_passes_level_5() -> None:
    run = delayed()
    assert run.words == ""
    (_, late) = judge(run.record)
    assert late.words == "p99 of the lateness between 0.0 and 6.0 ms, of 100 entries"


def test_applying_early_fails_level_5() -> None:
    run = delayed()
    run.poll(10_000 + 150, "1-100")
    said = "1-100 was written at 10.000 s, with a delay of 300 ms or more; it was shown 151.0 ms later, at 10.151 s"
    assert run.words == f"early: {said}"


def late_by(milliseconds: int, entries: int) -> Run:
    run = delayed()
    run.polls = [poll for poll in run.polls if poll.returned_us < at((101 - entries) * 100 + 290)]
    for number in range(101 - entries, 101):
        run.poll(number * 100 + 299 + milliseconds, f"1-{number - 1}")
        run.poll(number * 100 + 301 + milliseconds, f"1-{number}")
    return run


def test_applying_late_fails_level_5() -> None:
    assert late_by(80, 1).words == ""
    said = "p99 of the lateness between 79.0 and 82.0 ms, of 100 entries"
    assert late_by(80, 3).words.startswith(f"late: {said}; the latest: 1-")
    run = late_by(80, 3)
    run.more["peer_lateness_ms"] = {entry.position: 35.0 for entry in run.entries}
    assert run.words == ""


def test_an_entry_that_is_never_shown_is_late() -> None:
    run = delayed()
    run.polls = [poll for poll in run.polls if poll.returned_us < at(9000)]
    run.poll(12_000, "1-86")
    assert "ms or more (14 were never shown), of 100 entries; the latest: 1-87, written at 8.700 s" in run.words
    assert run.words.endswith("not shown yet at 12.000 s, never shown")


@pytest.mark.parametrize(("after_ms", "shown_ms", "said"), [(1000, 100, ""), (2100, 100, "early"), (2100, 305, "")])
def test_a_program_has_two_seconds_to_learn_a_longer_delay(after_ms: int, shown_ms: int, said: str) -> None:
    run = Run(5)
    run.settings = [Setting(at(0), at(1), 50), Setting(at(1000), at(1010), 300)]
    run.write(1010 + after_ms)
    run.poll(1010 + after_ms + shown_ms - 2, "1-0")
    run.poll(1010 + after_ms + shown_ms, "1-1")
    assert run.words.startswith(said)
    assert bool(run.words) == bool(said)


def test_a_delay_that_is_not_known_is_not_tested() -> None:
    run = delayed()
    run.settings = [Setting(at(20_000), at(20_001), 300)]
    assert run.words == "not tested: early, late"


def reset() -> Run:
    """Three writes, a reset, two writes; all of it shown."""
    run = Run(6)
    for number in range(1, 4):
        run.write(number * 100)
        run.poll(number * 100 + 50, f"1-{number}")
    run.reset(400)
    run.poll(450, "2-0")
    run.read(460, "2-0", "k1")
    run.write(500, "k2")
    run.write(510, "a/b")
    run.end(2000)
    return run


def test_a_reset_that_is_followed_passes_level_6() -> None:
    assert reset().words == ""


def test_a_value_of_an_old_epoch_fails_level_6() -> None:
    run = reset()
    run.read(600, "2-1", "k1", value="v1", version=1)
    said = 'at 0.601 s, at 2-1, it shows "v1" of k1, which is 1-1: of an epoch that a reset ended'
    assert run.words == f"old_epoch: {said}"


def test_another_value_with_the_version_of_an_old_epoch_is_another_fault() -> None:
    run = reset()
    run.read(600, "2-1", "k1", value="other", version=1)
    assert run.words.startswith("content: ")


def test_a_fault_before_the_reset_is_not_about_the_reset() -> None:
    run = reset()
    run.entries[1] = run.entries[1]._replace(key="k1")
    run.read(360, "1-3", "k1", value="v1", version=1)
    assert run.words.startswith("content: ")
    assert run.words.endswith("1-2 is not applied, although 1-3 is")


def test_an_answer_of_an_old_epoch_fails_level_6() -> None:
    run = reset()
    run.read(600, "1-3", "k1")
    assert run.words == "old_epoch: epoch 2 was shown at 0.461 s, and at 0.601 s 1-3 again"


def test_a_reset_that_is_not_followed_fails_level_6() -> None:
    run = reset()
    run.operations, run.polls = [], run.polls[:3]
    run.end(2000, "1-3")
    found = {one.guarantee: one.words for one in judge(run.record)}
    said = "at the end it is at 1-3 since 0.351 s, and the log at 2-2; it has not followed to epoch 2"
    assert found["complete"] == said
    assert not passed(judge(run.record))


def hole(level: int = 7) -> Run:
    run = correct(level)
    run.mark(1000, "log", "trimmed", "1-5")
    return run


def test_a_silent_hole_fails_level_7() -> None:
    run = hole()
    run.read(1500, "1-8", "k1", value="v1", version=1)
    said = "1-5 is not applied, although 1-8 is; the log was trimmed at 1.000 s: a silent hole"
    assert run.words.endswith(said)


def test_an_honest_stop_passes_level_7_only() -> None:
    for level in (7, 8, 2):
        run = hole(level)
        run.operations = [found for found in run.operations if found.kind != "final"]
        run.more["halted"] = True
        said = "" if level == 7 else "complete: it stopped, although nothing was missing from the log"
        assert run.words == said


def failed_over(*, seen: bool) -> Run:
    """The log loses 1-7 and 1-8, and goes on from 1-6; ``seen``: the program had shown 1-8."""
    run = correct(8)
    run.operations = [found for found in run.operations if found.kind != "final"]
    if not seen:
        run.operations = [found for found in run.operations if found.returned_us < at(700)]
        run.polls = [poll for poll in run.polls if poll.returned_us < at(700)]
    else:
        del run.polls[-1]
    run.reset(1000, goes_on="1-6")
    run.write(1100, "k1", "after")
    return run


def test_what_a_failover_lost_may_have_been_shown() -> None:
    run = failed_over(seen=True)
    run.end(2000)
    assert run.words == ""


def test_what_a_failover_lost_must_not_stay() -> None:
    run = failed_over(seen=True)
    run.read(1500, "2-7", "ü", value="v8", version=8)
    run.end(2000)
    assert 'at 2-7, it shows version 8 of ü, "v8", where the log has "v4" of 1-4' in run.words


@pytest.mark.parametrize("seen", [True, False])
def test_a_program_that_was_ahead_of_the_log_may_stop(seen: bool) -> None:
    run = failed_over(seen=seen)
    run.more["halted"] = True
    assert (run.words == "") == seen


def test_a_text_and_other_json_values_are_compared() -> None:
    run = Run(1)
    run.write(10, "k1")
    run.entries[0] = run.entries[0]._replace(value='{"a":[1,2.5,null,"ü\\""]}')
    run.end(100, value='{"a":[1,2.5,null,"ü\\""]}')
    assert run.words == ""
    run.entries[0] = run.entries[0]._replace(value='{"a":[1,2.5,null,"u\\""]}')
    assert run.words.startswith("serves: at the end, at 1-1, it shows version 1 of k1")
