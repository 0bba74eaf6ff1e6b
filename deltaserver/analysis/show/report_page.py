"""The report's page: its looks, and how numbers stand in it."""

from __future__ import annotations

import math

from deltaserver.pages import STYLE


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a reader wants it, ``–`` if there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}g}"


def with_error(value: float, error: float) -> str:
    """Return a value and its standard error, rounded to the error's two digits."""
    if not math.isfinite(value):
        return "–"
    if not math.isfinite(error) or error <= 0.0:
        return number(value)
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > 7:
        return number(value)
    return f"{value:.{places}f} ± {error:.{places}f}"


POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:; "
    "connect-src data: blob:"
)

PAGE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content=\""""
    + POLICY
    + """\">
<title>{title}</title>
<style>
"""
    + STYLE.replace("{", "{{").replace("}", "}}")
    + """\
figure {{ margin: 1.4rem 0 2rem; }}
figure img {{ max-width: 100%; height: auto; display: block; }}
figcaption {{ color: var(--soft); font-size: .87rem; max-width: 54rem; margin-top: .4rem; }}
.file {{ white-space: nowrap; font-family: ui-monospace, monospace; font-size: .8rem; }}
.notes {{ list-style: none; margin: 1rem 0; padding: .6rem .9rem; background: #fbf6ea;
  border-left: 3px solid #e0a030; font-size: .88rem; }}
.notes .problem {{ color: #9c2f1c; }}
#viewer {{ display: flex; gap: 12px; height: 620px; }}
#viewer > div {{ flex: 1 1 50%; min-width: 0; display: flex; flex-direction: column; }}
#chsp-map, #chsp-structure {{ flex: 1; min-height: 0; position: relative; }}
#chsp-meta {{ display: none; }}
@media (max-width: 800px) {{ #viewer {{ flex-direction: column; height: 1100px; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="by">deltaserver {version}. Numbers: <span class="file">summary.json</span> and the CSV
files in <span class="file">data/</span>; figures as PNG, SVG and PDF in
<span class="file">figures/</span>. Errors are one standard error.</p>
{notes}
<h2>Runs</h2>
{summary}
<h2>Figures</h2>
{figures}
<h2>Structures</h2>
{viewer}
</main>
</body>
</html>
"""
)

VIEWER = """<p class="by">Click a point to see its structure; the sliders below play the run.</p>
<div id="viewer">
<div><div id="chsp-meta"></div><div id="chsp-map"></div></div>
<div><div id="chsp-structure"></div><div id="chsp-info"></div></div>
</div>
<p id="viewer-error" class="by"></p>
<script type="application/json" id="chsp-data">@DATA@</script>
<script>@PROGRAM@</script>
<script>
(function () {
  var data = JSON.parse(document.getElementById("chsp-data").textContent);
  var say = function (text) { document.getElementById("viewer-error").textContent = text; };
  var warnings = new Chemiscope.Warnings();
  warnings.addHandler(function (text) { say(text); });
  Chemiscope.DefaultVisualizer.load({
    map: "chsp-map", info: "chsp-info", meta: "chsp-meta", structure: "chsp-structure"
  }, data, warnings).catch(function (error) { say("The viewer cannot start: " + error); });
})();
</script>"""
