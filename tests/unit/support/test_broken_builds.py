"""Every deliberate bug can still be put into the code."""

from pathlib import Path

import pytest

from tests.broken_builds import make
from tests.support.bugs import BUILDS, Build


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.name)
def test_a_build_has_its_bug(build: Build, tmp_path: Path) -> None:
    make(build, tmp_path)
    assert build.after in (tmp_path / build.path).read_text(encoding="utf-8")
