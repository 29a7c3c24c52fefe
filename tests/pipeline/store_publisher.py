"""A process that does one thing to a store, to be killed or to race: `-m tests.pipeline.store_publisher JSON`.

Its last line of output is JSON: the bytes sent, or the name and the text of the error.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from foundry.errors import FoundryError
from foundry.publish.stores import Options, open_store


def main(order: dict[str, Any]) -> dict[str, object]:
    options = order["options"]
    for key in ("ssh_config", "scratch"):
        options[key] = Path(options[key]) if options[key] else None
    store = open_store(order["url"], Options(**options))
    try:
        # Connected before the race begins, so that all begin at once.
        store.size("anything")
        Path(order["ready"]).touch()
        while not Path(order["go"]).exists():
            time.sleep(0.001)
        if order["act"] == "create":
            store.create(order["path"], order["data"].encode())
            return {"sent": len(order["data"])}
        if order["act"] == "download":
            store.download(order["path"], Path(order["target"]))
            return {"sent": 0}
        return {"sent": store.upload(Path(order["source"]), order["path"], order["digest"])}
    except FoundryError as error:
        return {"error": type(error).__name__, "brief": error.brief, "details": error.details}
    finally:
        store.close()


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
