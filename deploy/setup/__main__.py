"""`python3 -m deploy.setup`, what `make setup` calls."""

import sys

# This file and __init__.py keep to what an old Python can read, so that it gets as far as the message.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "LM Atelier needs Python 3.11 or newer, and this is %d.%d.\n" % sys.version_info[:2]  # noqa: UP031
        + "Name a newer one: make run PYTHON=python3.12"
    )

from deploy.setup.setup_steps import main

sys.exit(main())
