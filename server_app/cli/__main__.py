"""Entry point ``python -m server_app.cli``: the command ``winnow`` where it is not installed, as in a container."""

import sys

from server_app.cli import main

sys.exit(main())
