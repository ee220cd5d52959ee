"""Write a key through the client, and fail unless every replica gets it: URL REPLICA…"""

import json
import sys
from urllib.request import Request, urlopen


def main(url: str, *replicas: str) -> str | None:
    """Return what is missing, if anything."""
    body = json.dumps({"key": "helm-test", "value": "written by helm test"}).encode()
    with urlopen(Request(url, body), timeout=630) as answer:  # noqa: S310 - the chart's own URL
        found = json.load(answer)
    print(json.dumps(found))
    missing = (set(replicas) - set(found["replicas"])) | set(found["missing"])
    return f"not on {', '.join(sorted(missing))}" if missing else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
