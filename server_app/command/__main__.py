"""``python -m server_app.command``: the command ``winnow`` where it is not installed, as in a container."""

import sys

from server_app.command import main

sys.exit(main())
