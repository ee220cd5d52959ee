"""Configuration: accepted values, and the messages for rejected ones."""

import subprocess
import sys

import pytest

from nodes.runtime.config import ConfigError, PrimaryConfig, ReplicaConfig, load


def test_the_defaults_are_those_of_the_lab() -> None:
    primary, replica, client = load("primary", {}), load("replica", {}), load("client", {})
    assert [(c.node_id, c.host, c.port) for c in (primary, replica, client)] == [
        ("lab14-primary", "127.0.0.1", 8000),
        ("lab14-replica1", "127.0.0.1", 8001),
        ("lab14-client", "127.0.0.1", 8003),
    ]
    assert isinstance(primary, PrimaryConfig)
    assert isinstance(replica, ReplicaConfig)
    assert (primary.log_keep, replica.delay_ms, primary.tracing) == (10_000, 500, False)


def test_an_empty_value_is_no_value() -> None:
    assert load("primary", {"LAB_PORT": "", "LAB_ADMIN_TOKEN": ""}) == load("primary", {})


def test_a_node_is_named_by_its_id_and_reached_by_its_address() -> None:
    config = load("replica", {"LAB_NODE_ID": "lab14-replica2", "LAB_PORT": "8002"})
    assert config.name_url == "http://lab14-replica2:8002"
    assert config.advertise_url == "http://127.0.0.1:8002"
    assert load("replica", {"LAB_HOST": "::1"}).advertise_url == "http://[::1]:8001"
    everywhere = {"LAB_HOST": "0.0.0.0", "LAB_NODE_ID": "lab14-replica3", "LAB_PORT": "8004"}
    assert load("replica", everywhere).advertise_url == "http://lab14-replica3:8004"


def test_the_namespace_is_part_of_node_ids() -> None:
    assert load("primary", {"LAB_NAMESPACE": "{lab7}"}).node_id == "lab7-primary"


BAD = [
    ("OTEL_TRACES_SAMPLER", "nonsense"),
    ("LAB_NAMESPACE", "Lab 14"),
    ("LAB_NODE_ID", "a_b"),
    ("LAB_NODE_ID", "<b>"),
    ("LAB_HOST", "a b"),
    ("LAB_PORT", "0"),
    ("LAB_PORT", "65536"),
    ("LAB_PORT", "8000.0"),
    ("LAB_PORT", "٨"),
    ("LAB_REDIS_URL", "http://x"),
    ("LAB_REDIS_URL", "redis://x:port"),
    ("LAB_PRIMARY_URL", "x"),
    ("LAB_ADVERTISE_URL", "ftp://x"),
    ("LAB_DELAY_MS", "-1"),
    ("LAB_DELAY_MS", "nan"),
    ("LAB_DELAY_MS", "600001"),
    ("LAB_DELAY_MS", "soon"),
    ("LAB_ACK_DELAY_MS", "inf"),
    ("LAB_LINE_MAX_ENTRIES", "0"),
    ("LAB_LINE_MAX_BYTES", "1"),
    ("LAB_THREADS", "3"),
    ("LAB_ALLOWED_ORIGINS", "*"),
    ("LAB_ALLOWED_ORIGINS", "lab.example"),
    ("LAB_ALLOWED_ORIGINS", "https://lab.example/path"),
    ("LAB_ALLOWED_ORIGINS", "https://lab.example,null"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load("replica", {name: value})
    allowed = "" if name == "LAB_REDIS_URL" else "must be "
    assert str(refused.value).startswith(f"{name} is {value!r}, but {allowed}")


@pytest.mark.parametrize(("name", "value"), [("LAB_LOG_KEEP", "-1"), ("LAB_LOG_MAX", "0"), ("LAB_LOG_MAX", "9999")])
def test_the_log_cannot_keep_more_than_it_holds(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load("primary", {name: value})


def test_a_forbidden_option_of_the_log_servers_url_is_named() -> None:
    with pytest.raises(ConfigError, match=r"LAB_REDIS_URL is .*, but the option 'protocol' is not allowed"):
        load("replica", {"LAB_REDIS_URL": "redis://127.0.0.1:6379/0?protocol=3"})


def test_a_master_process_imports_nothing_that_only_its_worker_needs() -> None:
    script = "import sys, nodes.__main__ as node; node.load('primary', {}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"redis", "flask", "pydantic", "numpy"} & set(done.stdout.split())
