"""The pieces of a self-contained HTML page: no script, no font, no picture from anywhere else."""

import base64
import html
import string
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:">
<title>$title</title>
<style>
$colours
$style
</style>
</head>
<body>
<header>
<h1>$title</h1>
$lead
</header>
<nav aria-label="Contents"><ol>$contents</ol></nav>
<main>
$sections
</main>
</body>
</html>
""")

STYLE = """
*, *::before { box-sizing: border-box }
html { scroll-behavior: smooth }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 70rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { margin: 0 0 .75rem; font-size: clamp(1.6rem, 4.5vw, 2.3rem); line-height: 1.2; letter-spacing: -.015em; text-wrap: balance }
h2 { margin: 3.5rem 0 .5rem; font-size: 1.35rem; line-height: 1.3; letter-spacing: -.01em }
h3 { margin: 0 0 .25rem; font-size: 1rem }
p, figcaption { max-width: 46rem }
a { color: inherit; text-underline-offset: .2em }
.lead { font-size: 1.12rem }
.muted, figcaption, caption { color: var(--muted) }
nav ol { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1.25rem 0 0; padding: 0; list-style: none; font-size: .92rem }
figure { margin: 1.25rem 0 2rem }
figcaption { margin-top: .75rem; font-size: .95rem }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--narrowest)), 1fr)); gap: 1.25rem 1.5rem }
.panel { min-width: 0 }
.panel p { margin: 0 0 .25rem; font-size: .9rem }
svg { display: block; width: 100%; height: auto; overflow: visible }
svg text { font-family: inherit !important }
video { display: block; width: 100%; max-width: 22rem; border-radius: .4rem; background: var(--goal) }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 .75rem; padding: 0; list-style: none; font-size: .92rem }
.key::before { content: ""; display: inline-block; width: 1.4em; margin-right: .5em; vertical-align: .25em;
  border-top: .2em solid var(--colour) }
.key.dashed::before { border-top: .15em dashed var(--colour) }
.key.dot::before { width: .7em; height: .7em; border: 0; border-radius: 50%; background: var(--colour); vertical-align: baseline }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
.scroll > table { width: 100% }
caption { padding-bottom: .5rem; text-align: left; font-size: .95rem }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap }
th:first-child { text-align: left }
tbody th { font-weight: 500 }
th:last-child, td:last-child { padding-right: 0 }
thead th { border-bottom: 1.5px solid var(--muted); font-weight: 600; vertical-align: bottom }
tr.strong > * { font-weight: 700 }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: .9rem 2rem;
  margin: 1.5rem 0; font-size: .95rem }
dt { font-weight: 600 }
dd { margin: 0; color: var(--muted) }
.alert { max-width: none; margin: 1.25rem 0; padding: .8rem 1rem; border: 1px solid var(--alert);
  border-left-width: .4rem; border-radius: .4rem }
.alert strong { color: var(--alert) }
pre { margin: .75rem 0; padding: .9rem 1rem; border-radius: .4rem; background: var(--inset); font-size: .88rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
details { margin: 1rem 0 }
summary { cursor: pointer; font-weight: 600 }
:focus-visible { outline: 2px solid var(--sft); outline-offset: 2px }
@media print { nav { display: none } figure { break-inside: avoid } }
"""

GROUND = {"ground": ("#ffffff", "#12161c"), "inset": ("#f3f5f8", "#1b2129"), "alert": ("#c01f2e", "#ff7b83")}  # light, dark


def page(title: str, lead: str, sections: Mapping[str, str], palette: Mapping[str, tuple[str, str]]) -> str:
    """Returns the whole page.

    Args:
        title: plain text.
        lead: HTML that opens it.
        sections: HTML by heading, in order.
        palette: colours by name, on a light and on a dark ground; they become CSS variables.
    """
    colours = {**palette, **GROUND}
    return PAGE.substitute(
        title=text(title),
        lead=lead,
        colours=f":root {{ {_variables(colours, 0)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {_variables(colours, 1)} }} }}",
        style=STYLE.strip(),
        contents="".join(f'<li><a href="#{_anchor(heading)}">{text(heading)}</a></li>' for heading in sections),
        sections="\n".join(_section(heading, body) for heading, body in sections.items()),
    )


def text(value: object) -> str:
    """Returns a value as text that HTML shows as it is."""
    return html.escape(str(value))


def paragraph(words: str, css: str = "") -> str:
    """Returns a paragraph of plain text."""
    return f'<p class="{css}">{text(words)}</p>' if css else f"<p>{text(words)}</p>"


def alert(title: str, words: str) -> str:
    """Returns a paragraph that nobody overlooks."""
    return f'<p class="alert"><strong>{text(title)}</strong> {text(words)}</p>'


def key(name: str, colour: str, css: str = "") -> str:
    """Returns a name with its colour before it: a line, or with `css` "dashed" or "dot"."""
    return f'<span class="key {css}" style="--colour: var(--{colour})">{text(name)}</span>'


def figure(panels: Iterable[str], caption: str, legend: Iterable[str] = (), narrowest: str = "20rem") -> str:
    """Returns panels side by side, or below each other where there is less room.

    Args:
        panels: HTML of each.
        caption: plain text.
        legend: HTML of each entry.
        narrowest: width of a panel below which fewer stand side by side.
    """
    keys = "".join(f"<li>{entry}</li>" for entry in legend)
    inner = "".join(f'<div class="panel">{panel}</div>' for panel in panels)
    return (
        "<figure>"
        + (f'<ul class="legend">{keys}</ul>' if keys else "")
        + f'<div class="panels" style="--narrowest: {narrowest}">{inner}</div><figcaption>{text(caption)}</figcaption></figure>'
    )


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], strong: str = "") -> str:
    """Returns a table that scrolls where it is wider than the page.

    Args:
        caption: plain text.
        columns: their names, plain text.
        rows: of HTML cells; the first names the row.
        strong: the first cell of the row that stands out.
    """
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = "".join(_row(row, bool(strong) and row[0] == strong) for row in rows)
    return (
        f'<div class="scroll" role="region" aria-label="{text(caption)}" tabindex="0"><table><caption>{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def definitions(terms: Mapping[str, str]) -> str:
    """Returns a list of terms and what they mean, plain text."""
    return "<dl>" + "".join(f"<div><dt>{text(term)}</dt><dd>{text(meaning)}</dd></div>" for term, meaning in terms.items()) + "</dl>"


def details(summary: str, body: str) -> str:
    """Returns HTML that is shown when asked for."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def code(words: str) -> str:
    """Returns a block of code."""
    return f"<pre><code>{text(words)}</code></pre>"


def video(path: Path, label: str) -> str:
    """Returns a video, its file within the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<video controls muted loop playsinline preload="auto" aria-label="{text(label)}" src="data:video/mp4;base64,{data}"></video>'


def _section(heading: str, body: str) -> str:
    name = _anchor(heading)
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{text(heading)}</h2>\n{body}\n</section>'


def _anchor(heading: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in heading.lower())


def _row(cells: Sequence[str], strong: bool) -> str:
    first, *others = cells
    inner = f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)
    return f'<tr class="strong">{inner}</tr>' if strong else f"<tr>{inner}</tr>"


def _variables(colours: Mapping[str, tuple[str, str]], ground: int) -> str:
    return "; ".join(f"--{name}: {pair[ground]}" for name, pair in colours.items())
