"""The templates of pages and plots, in which every text is escaped."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import jinja2
import markupsafe

from rlcd_jax.report import reading


def render(template: str, **given: Any) -> markupsafe.Markup:
    """Return a template of this folder with what is given in its places."""
    return markupsafe.Markup(_environment().get_template(template).render(**given))


@functools.cache  # a plot is a template too, and a page has dozens
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["missing"] = reading.is_missing
    return environment
