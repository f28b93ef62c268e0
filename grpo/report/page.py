"""The page: everything that its template is filled with, the plotting library and its plots included."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.plotting import figure
from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from grpo.evaluation.changes import first_and_last, source_changes
from grpo.report import colours
from grpo.report.charts import THEME, plots
from grpo.report.completions import cut, flips, pick, pieces
from grpo.report.formats import bounds, shown, signed
from grpo.report.headline import facts, tiles, verdict
from grpo.report.panels import OUTCOME_COLOURS, sections
from grpo.report.read import RunFiles
from grpo.row_values import number
from grpo.rows import CHANGES, COMPLETIONS, EVALS, read_rows

_LIBRARY = "server/static/js/bokeh.min.js"


def page_of(run: RunFiles) -> str:
    """The whole report as HTML."""
    judged = read_rows(run.folder / EVALS, first_and_last(run.rows))
    sources = source_changes(run.rows, judged, read_rows(run.folder / CHANGES))
    found = sections(run.rows, sources)
    drawn = plots([chart for _, charts in found for chart in charts])
    library, script = _text_of("bokeh", _LIBRARY), _text_of("grpo.report", "page.js")
    return _template().render(
        name=run.folder.resolve().name,
        run=run,
        verdict=verdict(sources, run.training),
        tiles=tiles(sources, run.training),
        facts=facts(run),
        sources=sources,
        sections=found,
        flips=flips(run.folder / EVALS, sources),
        picks=pick(run.folder / COMPLETIONS),
        environment=json.dumps(run.environment, indent=2, ensure_ascii=False, default=str) if run.environment else "",
        style=Markup(_text_of("grpo.report", "page.css")),
        script=Markup(script),
        script_hashes=[_digest(script), _digest(library)],
        library=base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode(),
        plots=Markup(_plots_json(drawn)),
    )


def _template() -> Template:
    world = Environment(loader=PackageLoader("grpo.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    world.filters |= {"shown": shown, "signed": signed, "bounds": bounds}
    world.filters |= {"cut": cut, "themed": colours.themed}
    world.globals |= {"number": number, "pieces": pieces, "colours": colours, "outcome_colours": OUTCOME_COLOURS}
    return world.get_template("page.html")


def _text_of(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _plots_json(drawn: Sequence[figure]) -> str:
    """The plots in their order as JSON, without any `<`, which could end the script element that holds it."""
    document = Document(theme=THEME)
    with document.models.freeze():  # else each added plot is a walk over all before it
        for plot in drawn:
            document.add_root(plot)
    ids = [plot.id for plot in drawn]
    content = {"document": document.to_json(deferred=False), "roots": ids, "dark": colours.DARK}
    return str(serialize_json(content)).replace("<", "\\u003c")
