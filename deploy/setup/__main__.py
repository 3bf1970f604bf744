"""`python3 -m deploy.setup`, which `make setup` runs."""

import sys

# This file and __init__.py use only syntax that an old Python can parse, so that it prints the message.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "LM Atelier needs Python 3.11 or newer; this is %d.%d.\n" % sys.version_info[:2]  # noqa: UP031
        + "Use a newer one: make run PYTHON=python3.12"
    )

from deploy.setup.setup_steps import main

sys.exit(main())
