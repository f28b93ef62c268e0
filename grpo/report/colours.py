"""The report's colours. Each has a twin for dark screens, which the page puts in its place."""

from __future__ import annotations

PAGE, CARD, SOFT, RULE, QUIET, INK = "#f7f7f5", "#ffffff", "#f3f3f0", "#e4e4df", "#5d626e", "#1b1d22"
BLUE, ORANGE, GREEN, PURPLE = "#2459c4", "#c0560b", "#14795a", "#7d47b8"
ROSE, CYAN, OCHRE, GREY = "#b52b5f", "#0c7489", "#876a00", "#6b7280"

_SURFACES = {PAGE: "#121417", CARD: "#1a1d22", SOFT: "#22262c", RULE: "#2d3139", QUIET: "#a0a6b3", INK: "#e9eaed"}
_CURVES = {BLUE: "#84acff", ORANGE: "#ffa05c", GREEN: "#4fcfa0", PURPLE: "#c6a1ff"}
_MORE = {ROSE: "#ff8bb3", CYAN: "#5ccfe4", OCHRE: "#e0bf52", GREY: "#9aa3b2"}
DARK = _SURFACES | _CURVES | _MORE


def themed(colour: str) -> str:
    """The colour as CSS that follows the reader's choice of light or dark."""
    return f"light-dark({colour}, {DARK[colour]})"
