"""`python -m tests.npm`, what `make npm` calls."""

import sys

from tests.npm.installation import NotInstalled, install

try:
    install()
except NotInstalled as error:
    sys.exit(f"{error}\nWhat tests take from PyPI and npm (tests/npm) is missing; the tests that need it will fail.")
