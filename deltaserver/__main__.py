"""``python -m deltaserver`` is the command ``deltaserver``."""

import sys

from deltaserver.cli import main

sys.exit(main())
