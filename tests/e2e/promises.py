"""The expected result of each runbook block, by block name."""

import re
from collections.abc import Callable

from tests.e2e.conftest import SERVICES, containers, healthy, leftovers
from tests.support.http import POOL
from tests.support.runbook import Done
from tests.support.until import until

Promise = Callable[[Done], None]
DEFAULT_DELAYS = {"http://lab14-replica1:8001": 500, "http://lab14-replica2:8002": 1500}
PROMISES: dict[str, Promise] = {}
_SHORTEST_MS = 1400  # the delay is 1500; a window starts at the acknowledgement, which can be late on a busy machine


def promise(name: str) -> Callable[[Promise], Promise]:
    """Register the check of a block's result."""

    def register(check: Promise) -> Promise:
        PROMISES[name] = check
        return check

    return register


def versions(done: Done) -> list[int]:
    """Return the version of each response in the output."""
    return [answer["version"] for answer in done.answers]


def window(done: Done, low_ms: float, high_ms: float) -> None:
    """Check that the output is one consistency window within these bounds, with no replica missing."""
    (answer,) = done.answers
    assert answer["consistency_achieved"], answer
    assert low_ms <= answer["consistency_time_ms"] <= high_ms
    assert answer["missing"] == []


@promise("check-docker")
def docker_runs(done: Done) -> None:
    assert done.output == "Docker is running\n"


@promise("clean-previous")
def everything_is_removed(done: Done) -> None:
    assert not leftovers()


@promise("start-lab")
def every_service_has_started(done: Done) -> None:
    assert {container["Service"] for container in containers()} == {f"lab14-{name}" for name in SERVICES}


@promise("wait-healthy")
def every_service_is_healthy(done: Done) -> None:
    assert done.output.count("(healthy)") == len(SERVICES)


@promise("verify-services")
def every_node_reports_its_name_and_is_ok(done: Done) -> None:
    assert [(answer["service"], answer["status"]) for answer in done.answers] == [
        (f"lab14-{name}", "ok") for name in ("primary", "replica1", "replica2", "client")
    ]


@promise("show-urls")
def every_url_responds(done: Done) -> None:
    urls = re.findall(r"http://\S+", done.output)
    assert len(urls) == 7
    for url in urls:
        assert POOL.request("GET", url).status < 500, url


@promise("show-config")
def the_delays_are_the_defaults(done: Done) -> None:
    assert done.answers[0]["delays"] == DEFAULT_DELAYS


@promise("write-data")
def the_write_is_acknowledged(done: Done) -> None:
    assert done.answers[0]["replication_started"] is True
    assert done.answers[0]["version"] >= 1


@promise("check-all-immediate")
def the_slow_replica_is_behind(done: Done) -> None:
    primary, replica1, replica2 = versions(done)
    assert replica2 < primary
    assert replica2 <= replica1 <= primary


@promise("check-all-after-wait")
def all_versions_are_the_same(done: Done) -> None:
    assert len(set(versions(done))) == 1
    assert len(done.answers) == 3


@promise("write-and-read")
def both_replicas_are_stale(done: Done) -> None:
    assert (done.answers[0]["stale_read_count"], done.answers[0]["total_replicas"]) == (2, 2)


@promise("read-compare")
def every_replica_is_compared(done: Done) -> None:
    analysis = done.answers[0]["analysis"]
    stale = [replica["name"] for replica in analysis["stale_replicas"]]
    assert sorted(stale + analysis["consistent_replicas"]) == ["lab14-replica1", "lab14-replica2"]


@promise("consistency-status")
def every_replica_has_a_status(done: Done) -> None:
    assert [replica["replica_id"] for replica in done.answers[0]["replicas"]] == ["lab14-replica1", "lab14-replica2"]


@promise("write-and-wait")
def the_window_is_the_longest_delay(done: Done) -> None:
    window(done, _SHORTEST_MS, 2500)
    assert done.answers[0]["replicas"]["lab14-replica2"]["applied_after_ms"] >= 1500


@promise("multiple-measurements")
def five_windows_are_measured(done: Done) -> None:
    windows = [float(ms) for ms in re.findall(r"^Measurement \d: ([\d.]+)ms$", done.output, re.MULTILINE)]
    assert len(windows) == 5
    assert all(_SHORTEST_MS <= ms <= 2500 for ms in windows), windows


@promise("increase-lag")
def the_delay_is_longer(done: Done) -> None:
    assert (done.answers[0]["status"], done.answers[0]["delay_ms"]) == ("updated", 3000)


@promise("test-increased-lag")
def the_window_is_longer(done: Done) -> None:
    window(done, _SHORTEST_MS + 1500, 4000)


@promise("reset-lag")
def the_delay_is_restored(done: Done) -> None:
    assert done.answers[0]["all_delays"] == DEFAULT_DELAYS


@promise("ryw-primary")
def the_primary_has_the_write_and_the_slow_replica_does_not(done: Done) -> None:
    written, data = done.answers
    assert data["ryw-test"] == "read-your-writes-demo"
    assert f"\n{written['version']}\n" in done.output
    assert int(re.findall(r"^Replica 2: (\d+)$", done.output, re.MULTILINE)[0]) < written["version"]


@promise("ryw-wait")
def every_replica_has_the_write(done: Done) -> None:
    window(done, _SHORTEST_MS, 2500)
    version = done.answers[0]["write_result"]["version"]
    assert re.findall(r"^Replica \d: (\d+)$", done.output, re.MULTILINE) == [str(version)] * 2


@promise("ryw-token")
def a_read_with_the_token_returns_the_write(done: Done) -> None:
    assert done.answers[-1]["value"] == "mine"
    assert done.answers[-1]["token"] in done.output.splitlines()[0]


@promise("back-in-time")
def the_second_read_is_older_than_the_first(done: Done) -> None:
    first, second = done.answers
    assert int(second["position"].split("-")[1]) < int(first["position"].split("-")[1])
    assert second["stale"] is True


@promise("check-eventual")
def read_your_writes_and_monotonic_reads_are_violated(done: Done) -> None:
    for guarantee in ("read_your_writes", "monotonic_reads"):
        assert re.search(rf"^{guarantee} +no +violated", done.output, re.MULTILINE), done.output
        assert f"{guarantee}, smallest counterexample:" in done.output


@promise("check-session")
def all_session_guarantees_hold(done: Done) -> None:
    for guarantee in ("read_your_writes", "monotonic_reads", "monotonic_writes", "writes_follow_reads"):
        assert re.search(rf"^{guarantee} +yes +held", done.output, re.MULTILINE), done.output


@promise("load-test")
def every_threshold_held(done: Done) -> None:
    assert "BROKEN" not in done.output
    assert len(re.findall(r"^  held ", done.output, re.MULTILINE)) == 4


@promise("load-test-json")
def the_results_are_saved(done: Done) -> None:
    every_threshold_held(done)
    figures = done.answers[-1]
    assert 1500 <= figures["p(50)"] <= figures["p(95)"] <= figures["p(99)"]
    assert figures["count"] >= 90


@promise("quick-load")
def most_reads_right_after_a_write_are_stale(done: Done) -> None:
    found = re.search(
        r"Completed (\d+) write\+read operations\nStale reads detected: \d+ times \((\d+)%\)", done.output
    )
    assert found is not None, done.output
    assert int(found[1]) > 20
    assert int(found[2]) > 90


@promise("generate-data")
def data_is_generated(done: Done) -> None:
    assert "....................\nDone!" in done.output


@promise("stream-entries")
def entry_ids_are_positions(done: Done) -> None:
    positions = [int(version) for version in re.findall(r"^1-(\d+)$", done.output, re.MULTILINE)]
    assert positions == list(range(positions[0], positions[0] - 3, -1))
    assert done.output.count("\nwrite_id\n") == 3


@promise("stream-groups")
def every_replica_has_a_group(done: Done) -> None:
    assert re.findall(r"^name\n(\S+)$", done.output, re.MULTILINE) == ["lab14-replica1", "lab14-replica2"]
    assert len(re.findall(r"^lag\n\d+$", done.output, re.MULTILINE)) == 2


@promise("stream-pending")
def a_write_is_pending_only_while_in_flight(done: Done) -> None:
    position, _, count, _, highest, *rest = done.output.splitlines()
    assert (int(count) >= 1, highest) == (True, position)
    assert rest[rest.index("Two seconds later:") + 1] == "0"


@promise("stream-native")
def the_stream_is_shown_without_docker(done: Done) -> None:
    assert "lab14:log" in done.output
    assert "in-flight" in done.output
    assert "The lab is stopped." in done.output


@promise("trace-write")
def the_trace_covers_the_request_and_every_apply(done: Done) -> None:
    spans = [line.split("\t") for line in done.output.splitlines() if line.count("\t") == 3]
    found = {(service, name) for service, _, _, name in spans}
    assert found >= {("lab14-client", "POST /write-and-wait"), ("lab14-primary", "send lab14:log")}
    for replica, delay_ms in (("lab14-replica1", 500), ("lab14-replica2", 1500)):
        assert (replica, "process lab14:log") in found
        (delay,) = [
            float(took.split()[0])
            for service, _, took, name in spans
            if (service, name) == (replica, "delay lab14:log")
        ]
        assert delay == delay_ms


@promise("alert-fires")
def the_alert_fires(done: Done) -> None:
    assert "ReplicaLagHigh is firing\n" in done.output
    assert re.search(r"ReplicaLagHigh firing: lab14-replica2 is .* behind", done.output)


@promise("alert-resolves")
def the_alert_resolves(done: Done) -> None:
    assert "ReplicaLagHigh is inactive\n" in done.output
    assert done.answers[-1] == {"all_consistent": True}


@promise("third-replica")
def the_third_replica_takes_part(done: Done) -> None:
    assert list(done.answers[-1]) == ["lab14-replica1", "lab14-replica2", "lab14-replica3"]
    assert 2500 <= done.answers[-1]["lab14-replica3"]["applied_after_ms"] < 3500


@promise("third-replica-gone")
def the_third_replica_is_removed(done: Done) -> None:
    assert done.answers[-1] == {"status": "forgotten", "replica_id": "lab14-replica3"}
    assert len(containers()) == len(SERVICES)


@promise("experiment")
def the_measurement_is_close_to_the_prediction(done: Done) -> None:
    assert "staleness, finished" in done.output
    found = re.search(r"^all 30 steps +3000 +RMSE +([\d.]+)%$", done.output, re.MULTILINE)
    assert found is not None, done.output
    assert float(found[1]) < 8  # with only 3000 reads
    assert POOL.request("GET", "http://localhost:8000/admin/replication-delays").json()["delays"] == DEFAULT_DELAYS


@promise("experiment-page")
def the_report_has_charts(done: Done) -> None:
    (found,) = done.answers
    assert (found["state"], found["window_ms"]["count"]) == ("finished", 40)
    assert _SHORTEST_MS < found["window_ms"]["p50"] < 1700
    assert done.output.endswith("\n2\n")


@promise("fault-pause")
def a_window_is_as_long_as_the_pause(done: Done) -> None:
    started, measured = done.answers
    assert started["fault"] == "pause"
    assert 3000 < measured["consistency_time_ms"] < 6000


@promise("fault-partition")
def the_replica_is_cut_off_and_recovers(done: Done) -> None:
    _, checks, first, second, healed = done.answers
    assert "cut" in checks["log"]
    assert (first["version_behind"], second["version_behind"]) == (1, 0)
    assert healed["consistency_achieved"]


@promise("fault-crash")
def the_replica_restarts_and_catches_up(done: Done) -> None:
    _, converged, restarted = done.answers
    assert converged["consistency_achieved"]
    assert restarted["restarts"] >= 1
    until(healthy, 15)


@promise("fault-slow")
def the_replica_falls_behind(done: Done) -> None:
    _, first, second = done.answers
    assert first["version_behind"] > 3
    assert second["version_behind"] == 0


@promise("fault-duplicate")
def entries_are_redelivered(done: Done) -> None:
    found = re.search(r"^ec_redeliveries_total\{.*\} ([\d.]+)$", done.output, re.MULTILINE)
    assert found is not None, done.output
    assert float(found[1]) >= 1


@promise("fault-drop-ack")
def applied_entries_stay_pending(done: Done) -> None:
    _, found, ended = done.answers
    assert (found["lag_versions"], found["pending"] >= 5) == (0, True), found
    assert ended["ended"] == ["drop_ack"]


@promise("fault-skew")
def the_replica_applies_early(done: Done) -> None:
    _, found, ended = done.answers
    assert found["observed_after_ms"] < 400
    assert ended["lab14-replica1"] == ["skew"]


@promise("fault-corrupt")
def the_corruption_is_detected_and_repaired(done: Done) -> None:
    _, found, wrong, _, right = done.answers
    assert (found["diverged"], found["version_behind"]) == (True, 0)
    assert (wrong["value"], right["value"]) == ("corrupt", "gold")
    assert wrong["version"] == right["version"]


@promise("redelivery-hold")
def acknowledgements_are_held_back(done: Done) -> None:
    changed, acks_ms = done.answers
    assert changed == {"status": "updated", "delay_ms": 100}
    assert list(acks_ms.values()) == [0, 3000]


@promise("redelivery-crash")
def pending_entries_are_delivered_again_and_not_applied_again(done: Done) -> None:
    held, again, recent = done.answers
    assert held == again
    assert held["position"] != held["acknowledged_position"]
    assert recent == {"source": "lab14-replica2", "applied": []}
    pending = re.findall(r"^(\d+-\d+)\nlab14-replica2\n\d+\n(\d+)$", done.output, re.MULTILINE)
    positions = [position for position, _ in pending]
    assert (len(set(positions)), positions[:5], positions[4]) == (5, positions[5:], held["position"])
    assert [int(count) for _, count in pending] == [1] * 5 + [2] * 5
    assert re.findall(r"^ec_\w+\{.*\} ([\d.]+)$", done.output, re.MULTILINE) == ["5.0", "5.0"]


@promise("redelivery-end")
def everything_is_acknowledged_and_equal(done: Done) -> None:
    waited, compared, restored = done.answers
    assert waited["position"] == waited["acknowledged_position"]
    assert "\n0\n" in done.output
    assert compared == {"all_consistent": True, "digests_equal": True}
    assert restored == {"status": "updated", "delay_ms": 1500}


@promise("failover-start")
def the_lab_has_a_master_and_two_copies(done: Done) -> None:
    (answer,) = done.answers
    assert answer["healthy"]
    assert answer["log_master"] == "lab14-redis1"
    assert "copies=2" in answer["promise"]


def lost_writes(done: Done) -> list[int]:
    return [int(float(found)) for found in re.findall(r"^ec_lost_writes_total (\S+)$", done.output, re.MULTILINE)]


@promise("failover-without-copies")
def acknowledged_writes_are_lost_and_named(done: Done) -> None:
    statuses = {code: int(count) for count, code in re.findall(r"^ +(\d+) (\d+)$", done.output, re.MULTILINE)}
    (lost,) = lost_writes(done)
    assert 0 < lost < statuses["200"]
    assert re.search(rf"^the log lost {lost} acknowledged writes?, \d+-\d+", done.output, re.MULTILINE)


@promise("failover-event")
def the_loss_is_an_event(done: Done) -> None:
    assert done.output == "" or {"lost", "positions", "count"} <= set(done.output.split())


@promise("failover-with-copies")
def no_acknowledged_write_is_lost(done: Done) -> None:
    before, after = lost_writes(done)
    assert after == before
    assert int(re.findall(r"^ +(\d+) 200$", done.output, re.MULTILINE)[0]) > 0


@promise("failover-readers")
def a_reader_saw_a_write_that_is_lost(done: Done) -> None:
    fault, seen, gone = done.answers
    assert fault["fault"] == "isolate-master"
    assert (seen["value"], gone["value"]) == ("after", "before")
    assert int(gone["position"].split("-")[0]) > int(seen["position"].split("-")[0])
    assert f"the log lost 1 acknowledged write, {seen['position']}:" in done.output


@promise("failover-end")
def the_lab_is_stopped(done: Done) -> None:
    assert "The lab is stopped." in done.output


@promise("grade-first-try")
def the_first_try_fails_with_a_counterexample(done: Done) -> None:
    assert re.search(r"\d+-\d+ was acknowledged at .*; killed at ", done.output)
    assert done.output.endswith("exit status 1\n")


@promise("reset-data")
def every_node_is_empty(done: Done) -> None:
    assert (done.answers[0]["status"], done.answers[0]["version"]) == ("reset", 0)
    assert {replica["status"] for replica in done.answers[0]["replicas"].values()} == {"emptied"}


@promise("logs-all")
@promise("logs-primary")
@promise("logs-replicas")
def no_node_logs_a_traceback(done: Done) -> None:
    assert "Traceback" not in done.output


@promise("resource-usage")
def every_container_is_listed(done: Done) -> None:
    for name in SERVICES:
        assert f"lab14-{name}-1" in done.output


@promise("restart-primary")
def the_primary_restarts(done: Done) -> None:
    until(healthy, 15)


@promise("cleanup")
def the_stack_is_removed(done: Done) -> None:
    assert done.output.endswith("Lab cleaned up\n")
    assert not leftovers()
