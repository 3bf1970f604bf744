from pathlib import Path

from atelier.errors import BY_CODE
from atelier.settings.settings_document import PAGE, page

API = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m atelier.settings.settings_document"


def test_the_api_page_knows_every_error() -> None:
    shown = API.read_text()
    assert [code for code in BY_CODE if f"`{code}`" not in shown] == []


def test_the_api_pages_statuses_are_those_of_the_errors() -> None:
    rows = [line.split("|")[1:3] for line in API.read_text().splitlines() if line.startswith(("| 4", "| 5"))]
    shown = {code.strip(" `"): int(status) for status, codes in rows for code in codes.split(",")}
    assert shown == {code: error.status for code, error in BY_CODE.items()}
