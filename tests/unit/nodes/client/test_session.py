"""Sessions: the cookie, and the tokens of this lab and of another one."""

from functools import partial

import pytest
from werkzeug.http import parse_cookie

from broker.position import START, Position
from nodes.client.errors import ForeignSession, MalformedPosition
from nodes.client.session import Session as LabSession
from nodes.client.session import session_of as parsed_session
from tests.support.peers import LAB
from tests.support.problems import answered

Session = partial(LabSession, LAB)


def session_of(*, required: bool = False, **headers: str) -> LabSession:
    return parsed_session(headers.get("Lab-Position"), parse_cookie(headers.get("Cookie")), LAB, required=required)


def test_a_session_comes_from_the_cookie_unless_there_is_a_header() -> None:
    session = Session().after_write(Position(1, 4)).after_read(Position(1, 6)).after_read(Position(1, 5))
    cookie = session.cookie.split(";")[0]
    assert session_of(Cookie=cookie) == session == Session(Position(1, 4), Position(1, 6))
    assert session_of(**{"Cookie": cookie, "Lab-Position": f"1-9.{LAB}"}) == Session(Position(1, 9), START)
    assert session_of() == Session()


def test_a_read_waits_for_a_bare_position_but_it_does_not_count_as_written() -> None:
    session = session_of(**{"Lab-Position": "1-9"})
    assert (session.position, session.written, session.read) == (Position(1, 9), START, START)
    assert session.token == f"1-9.{LAB}"


def test_the_token_of_another_lab_is_rejected() -> None:
    token = LabSession("0d15ea5e", Position(1, 4)).token
    with pytest.raises(ForeignSession, match=f"of another lab; this is lab {LAB}") as failed:
        session_of(**{"Lab-Position": token})
    found = answered(failed.value)
    assert (found.status, found.slug) == (412, "foreign-session")


def test_the_cookie_of_another_lab_is_rejected_once_if_a_session_is_required_and_ignored_otherwise() -> None:
    foreign = LabSession("0d15ea5e", Position(1, 4), Position(1, 6)).cookie.split(";")[0]
    assert session_of(Cookie=foreign) == Session()
    with pytest.raises(ForeignSession, match=f"of another lab; this is lab {LAB}") as failed:
        session_of(required=True, Cookie=foreign)
    own = failed.value.headers["Set-Cookie"].split(";")[0]
    assert session_of(required=True, Cookie=f"{foreign}; {own}") == Session()


@pytest.mark.parametrize("cookie", ["1-1", "x.y", "1-1.", "", "1-1.2-2.3-3"])
def test_a_malformed_cookie_is_rejected_and_removed(cookie: str) -> None:
    with pytest.raises(MalformedPosition) as failed:
        session_of(Cookie=f"lab_session_{LAB}={cookie}")
    assert answered(failed.value).status == 400
    assert "Max-Age=0" in failed.value.headers["Set-Cookie"]
