"""Reads specifications of Vega-Lite, as results carry them."""

import vl_convert


def rows_of(spec, column):
    """The rows of a specification that have a column, once Vega has drawn it without an error."""
    vl_convert.vegalite_to_svg({"width": 300, **spec} if "spec" not in spec else spec)
    return [row for rows in spec["datasets"].values() for row in rows if column in row]
