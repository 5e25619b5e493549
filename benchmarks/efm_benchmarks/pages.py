"""What the scripts in benchmarks/ share: pages that hold generated tables. Only light imports here: workers make them, too."""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Returns a table as GitHub's Markdown: the first `words` columns to the left, numbers to the right."""
    lines = [columns, [*["---"] * words, *["---:"] * (len(columns) - words)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_block(text: str, name: str, block: str) -> str:
    """Returns a page's text with another block between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
        ValueError: the page has no such place.
    """
    begin, end = (f"<!-- {word} {name} -->" for word in ("begin", "end"))
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", text, flags=re.DOTALL)
    if found is None:
        raise ValueError(f"there is no {begin} … {end} in the page.")
    return f"{text[: found.start()]}{begin}\n{block.strip()}\n{end}{text[found.end() :]}"


def renew(page: Path, text: str, *, check: bool, stale: str) -> None:
    """Writes a page's new text; with `check` it changes nothing, and exits with the message `stale` if the page has another."""
    if check and page.read_text() != text:
        sys.exit(stale)
    if not check:
        page.write_text(text)


def run_script(program: Callable[[], object]) -> None:
    """Runs a script's program; a mistake of the user's ends with one line, not with a traceback."""
    from efm_envs.errors import EFMError

    try:
        program()
    except (EFMError, OSError) as error:
        sys.exit(f"error: {error}")
