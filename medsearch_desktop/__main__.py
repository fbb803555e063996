"""`python -m medsearch_desktop` is `medsearch`."""

import sys

from medsearch_desktop.serve.cli import main

sys.exit(main())
