"""The description of the routes under /api, without a library; of it the types of the browser interface are made.

python -m medsearch_desktop.serve.api.openapi > ui/openapi.json
"""

from __future__ import annotations

import json
import sys
from typing import Any, cast

from medsearch_desktop.serve.api.app import api_routes, described_app


def description() -> dict[str, Any]:
    """Return what a server answers to /api/openapi.json."""
    # Routes ask for these when a request comes, and none does.
    nothing = cast(Any, None)
    return described_app(api_routes(nothing, nothing, nothing, nothing, nothing)).openapi()


def main() -> None:
    """Print the description as JSON, always the same way."""
    json.dump(description(), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
