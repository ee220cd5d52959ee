"""The scripts that the log server runs."""

import re
from importlib import resources

SCRIPTS = {path.name: path.read_text() for path in resources.files("broker").iterdir() if path.name.endswith(".lua")}


def test_the_check_covers_every_command_of_every_script() -> None:
    called = {command for text in SCRIPTS.values() for command in re.findall(r"redis\.call\('(\w+)'", text)}
    assert called == set(re.findall(r"need\('(\w+)'", SCRIPTS["check.lua"]))
