"""Write the packaged OpenAPI snapshot, or with ``--check`` say whether it is what the code would write.

Run by ``make openapi``. The routes are those of the whole product, started in a folder that is thrown away.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from streamgate import __version__
from streamgate.app import Running
from streamgate.kernel import DirectBinding, discover
from streamgate.runtime.http import openapi
from streamgate.settings import load

SNAPSHOT = Path(__file__).resolve().parent.parent / "streamgate" / "plugins" / "api_gateway" / "openapi.json"
BUILT_IN = {"api-gateway", "upload", "transcoder", "streaming", "metadata", "cache", "auth", "worker", "monitor"}


async def document() -> bytes:
    """The OpenAPI 3.1 document of the product, as stable bytes."""
    plugins = discover(BUILT_IN)
    with tempfile.TemporaryDirectory() as folder:
        settings = load(plugins, service="monolith", environ={}, flags={"data_dir": Path(folder)})
        async with Running(settings, "monolith").started(plugins, DirectBinding()) as running:
            described: dict[str, Any] = openapi(
                running.routes, running.authenticator(), title="StreamGate", version=__version__
            )
    return msgspec.json.format(msgspec.json.encode(described, order="sorted"), indent=1) + b"\n"


def main() -> int:
    """Exit code 0 when the snapshot is written or right, 1 when it is not what it should be."""
    made = asyncio.run(document())
    if "--check" not in sys.argv[1:]:
        SNAPSHOT.write_bytes(made)
        return 0
    if SNAPSHOT.read_bytes() == made:
        return 0
    sys.stderr.write("The OpenAPI snapshot is out of date; run: make openapi\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
