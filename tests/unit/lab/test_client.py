"""The HTTP client of the commands: responses, errors, and streams of events."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from lab import client
from lab.cli import main
from lab.client import NodeUnreachable
from lab.errors import LabError
from tests.support.http import serving

RESPONSES = {
    "/good": (200, b'{"a": 1}'),
    "/refused": (422, b'{"detail": "key: missing."}'),
    "/bare": (503, b"{}"),
    "/array": (200, b"[1]"),
    "/text": (200, b"hello"),
    "/events": (200, b': comment\n\ndata: {"n": 1}\n\ndata: {}\n\nid: 7\ndata: {"n": 2}\n\n'),
}


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    with serving(lambda request: RESPONSES[request.path]) as url:
        yield url


def test_a_successful_response_is_returned(node: str) -> None:
    assert client.get(f"{node}/good") == {"a": 1}
    assert client.request("GET", f"{node}/array") == (200, [1])


@pytest.mark.parametrize(("path", "detail"), [("/refused", r"^key: missing\.$"), ("/bare", "/bare answered 503$")])
def test_any_other_status_is_an_error_with_its_detail(node: str, path: str, detail: str) -> None:
    with pytest.raises(LabError, match=detail) as caught:
        client.get(f"{node}{path}")
    assert not isinstance(caught.value, NodeUnreachable)


@pytest.mark.parametrize("path", ["/array", "/text"])
def test_a_response_that_is_not_a_json_object_is_no_node(node: str, path: str) -> None:
    with pytest.raises(NodeUnreachable, match=f"{path} does not answer"):
        client.get(f"{node}{path}")


def test_a_stream_yields_its_messages_and_reports_its_end(node: str) -> None:
    messages = client.messages(f"{node}/events")
    assert [next(messages), next(messages)] == [{"n": 1}, {"n": 2}]
    with pytest.raises(NodeUnreachable):
        next(messages)


@pytest.mark.parametrize("command", ["fault list", "experiment list", "check", "watch"])
def test_each_command_reports_how_to_find_or_start_a_lab(command: str) -> None:
    done = CliRunner().invoke(main, [*command.split(), "--client-url", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    assert "does not answer" in done.stderr
    assert done.stderr.endswith("; `lab status` shows a lab, `lab up` starts one\n")
    assert done.stderr.count("\n") == 1
