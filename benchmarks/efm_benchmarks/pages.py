"""Pages that hold generated tables. Only light imports here: workers make them, too."""

import sys
from pathlib import Path


def renew(page: Path, text: str, *, check: bool, stale: str) -> None:
    """Writes a page's new text; with `check` it changes nothing, and exits with the message `stale` if the page has another."""
    if check and page.read_text() != text:
        sys.exit(stale)
    if not check:
        page.write_text(text)
