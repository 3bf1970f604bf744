"""Options that several verbs share."""

from typing import Annotated

import typer

AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
