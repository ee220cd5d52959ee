"""Files and directories that only their owner can use, and disks with free space."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.local import files


def test_a_link_of_another_user_to_a_directory_of_this_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    files.directory(tmp_path / "link")
    genuine = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = genuine(self, follow_symlinks=follow_symlinks)
        if self.name != "link" or follow_symlinks:
            return found
        return os.stat_result([*found[:4], os.geteuid() + 1, *found[5:10]])

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(LabError, match="belongs to user"):
        files.directory(tmp_path / "link")


def test_each_disk_of_a_data_directory_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "replicas" / "lab14-replica1"
    full.mkdir(parents=True)
    genuine = Path.stat

    def stat(self: Path, *, follow_symlinks: bool = True) -> Any:
        found = genuine(self, follow_symlinks=follow_symlinks)
        return os.stat_result([*found[:2], -1, *found[3:10]]) if self == full else found

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 0 if path == full else 10**9)
    )
    assert str(files.shortage(tmp_path)).startswith(f"the disk of {full} is full")
