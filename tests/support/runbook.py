"""Parse and run a runbook: fenced bash blocks with Runme attributes."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt


class Block(NamedTuple):
    """A runnable block."""

    name: str
    attributes: dict[str, Any]
    script: str


class Done(NamedTuple):
    """The output of a block, stdout and stderr combined."""

    output: str

    @property
    def answers(self) -> list[Any]:
        """The JSON objects and arrays that start a line of the output, in order."""
        decoder, found, at = json.JSONDecoder(), [], 0
        for line in re.finditer(r"^[{\[]", self.output, re.MULTILINE):
            if line.start() >= at:
                try:
                    value, at = decoder.raw_decode(self.output, line.start())
                except ValueError:
                    continue
                found.append(value)
        return found


def blocks(document: str) -> list[Block]:
    """Return the bash blocks in order; raise ``ValueError`` on invalid attributes or a missing or duplicate name."""
    found: dict[str, Block] = {}
    for token in MarkdownIt().parse(document):
        language, _, rest = token.info.partition(" ")
        if token.type != "fence" or language != "bash":
            continue
        attributes = json.loads(rest or "{}")
        name = attributes.pop("name", None)
        if not name or name in found:
            raise ValueError(f"missing or duplicate block name {name!r}: {token.content[:60]!r}")
        found[name] = Block(name, attributes, token.content)
    return list(found.values())


def quick_reference(document: str) -> list[str]:
    """Return the curl commands in the document's tables."""
    return re.findall(r"^\|.*\| `(curl .*?)` \|$", document, re.MULTILINE)


def run(script: str, directory: Path, timeout_seconds: float = 300) -> Done:
    """Run a script as Runme does, with ``-e -o pipefail``; a non-zero exit status fails the test."""
    line = ["bash", "-e", "-o", "pipefail", "-c", script]
    done = subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_seconds, check=False,
        cwd=directory, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode} of\n{script}\n{done.stdout}"
    return Done(done.stdout)
