"""The runbook runner reads the blocks that Runme reads, and fails if a block fails."""

from pathlib import Path

import pytest

from tests.support import runbook
from tests.support.runbook import Block, Done

DOCUMENT = """
# A runbook

```bash {"name": "first", "background": true}
echo one
```

```json
{"not": "run"}
```

1. In a list:

   ```bash {"name": "second"}
   echo two
   ```

| action | command |
| --- | --- |
| Compare | `curl localhost:1/x -d '{"a":"b"}'` |
| Look | http://localhost:2 |
"""


def test_blocks_are_returned_by_name_in_document_order() -> None:
    assert runbook.blocks(DOCUMENT) == [
        Block("first", {"background": True}, "echo one\n"),
        Block("second", {}, "echo two\n"),
    ]


@pytest.mark.parametrize(
    "attributes", ["", '{"background": "true"}', '{"name": ""}', '{"name": "first"', '{"name": "first"}']
)
def test_a_block_without_a_unique_name_or_with_invalid_attributes_is_refused(attributes: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        runbook.blocks(DOCUMENT + f"```bash {attributes}\necho three\n```\n")


def test_the_quick_reference_returns_the_commands_in_tables() -> None:
    assert runbook.quick_reference(DOCUMENT) == ['curl localhost:1/x -d \'{"a":"b"}\'']


@pytest.mark.parametrize("script", ["false; echo on", "false | cat", "exit 3"])
def test_a_failing_block_fails_the_test(script: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit status"):
        runbook.run(script, tmp_path)


def test_the_output_of_a_block_has_both_streams_in_order(tmp_path: Path) -> None:
    assert runbook.run("echo one; echo two >&2; pwd", tmp_path).output == f"one\ntwo\n{tmp_path}\n"


def test_answers_are_the_json_objects_and_arrays_in_the_output() -> None:
    done = Done('Primary:\n{\n  "a": {\n    "b": 1\n  }\n}\n[x] no JSON\n[1, 2]\n{"c": 2} and more\n')
    assert done.answers == [{"a": {"b": 1}}, [1, 2], {"c": 2}]
