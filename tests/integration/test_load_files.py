"""`lab load` against a real primary: common file formats, with the same counts on both sides."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli import main
from lab.local.supervisor import Lab
from tests.support.http import get

ITEM = '{"key":"loaded","value":1}'


@pytest.mark.parametrize(
    ("content", "written", "refused"),
    [
        pytest.param(ITEM + "\r" + ITEM + "\n", 2, [], id="lone carriage return"),
        pytest.param('{"key":"loaded",\r"value":1}\n', 1, [], id="carriage return inside"),
        pytest.param("\ufeff" + ITEM + "\n" + ITEM, 2, [], id="byte order mark"),
        pytest.param(f"[\n{ITEM},\n{ITEM}\n]", 2, [], id="array"),
        pytest.param(f"{ITEM}\n[{ITEM}]\n{ITEM}", 2, ["line 2"], id="array among lines"),
        pytest.param('{"key":"a","value":1,"\\u001b]0;t\\u0007":1}\n' + ITEM, 1, ["line 1"], id="control character"),
        pytest.param(ITEM + "\r\n{\r\n" + ITEM, 2, ["line 2"], id="not JSON"),
    ],
)
def test_every_item_is_written_or_its_line_is_reported(
    fresh: Lab, tmp_path: Path, content: str, written: int, refused: list[str]
) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(content.encode())
    done = CliRunner().invoke(main, ["load", str(path), "--primary-url", fresh.primary_url])
    assert done.exit_code == (1 if refused else 0), done.output
    assert get(f"{fresh.primary_url}/version")["version"] == written
    assert [line.split(":")[0] for line in done.stderr.splitlines() if line.startswith("line")] == refused
    assert not set(done.output) & {"\x1b", "\x07"}
