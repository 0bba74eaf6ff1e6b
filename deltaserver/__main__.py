"""``python -m deltaserver`` is the command ``deltaserver``."""

import sys

from deltaserver.cli.app import main

sys.exit(main())
