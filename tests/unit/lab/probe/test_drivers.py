"""The drivers are in an extra: without it, a sentence says what to install."""

import importlib
import sys

import pytest

import lab.probe
from lab.errors import LabError


@pytest.mark.parametrize(("system", "driver"), [("postgresql", "psycopg"), ("mysql", "pymysql")])
def test_without_a_driver_a_sentence_names_the_package(
    monkeypatch: pytest.MonkeyPatch, system: str, driver: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(sys.modules, f"lab.probe.{system}", raising=False)
    monkeypatch.delattr(lab.probe, system, raising=False)
    with pytest.raises(LabError, match=r"needs \w+: install it with `pip install 'eventual-consistency-lab\[probe\]'`"):
        importlib.import_module(f"lab.probe.{system}")
