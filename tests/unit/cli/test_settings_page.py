from atelier.settings.document import PAGE, page


def test_the_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m atelier.settings.document"
