"""The formats by name, and which of a format's layouts a file has."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from models.errors import ImportFailed
from streams.importers import amazon, generic, movielens, online_retail
from streams.importers.cells import Format, Layout
from streams.importers.rows import Kind, SourceTable

FORMATS: Final[dict[str, Format]] = {
    "generic": Format(
        {Kind.ITEMS: generic.ITEM_LAYOUTS, Kind.INTERACTIONS: generic.INTERACTION_LAYOUTS}
    ),
    "amazon-2023": Format(
        {Kind.ITEMS: amazon.ITEM_LAYOUTS, Kind.INTERACTIONS: amazon.INTERACTION_LAYOUTS}
    ),
    "movielens": Format(
        {Kind.ITEMS: movielens.ITEM_LAYOUTS, Kind.INTERACTIONS: movielens.INTERACTION_LAYOUTS},
        dat_columns={
            Kind.ITEMS: movielens.MOVIE_COLUMNS,
            Kind.INTERACTIONS: movielens.RATING_COLUMNS,
        },
    ),
    "online-retail": Format(
        {
            Kind.ITEMS: online_retail.ITEM_LAYOUTS,
            Kind.INTERACTIONS: online_retail.INTERACTION_LAYOUTS,
        }
    ),
}


def format_named(name: str) -> Format:
    """The format, or ImportFailed with the names there are."""
    try:
        return FORMATS[name]
    except KeyError:
        known = ", ".join(FORMATS)
        raise ImportFailed(f"there is no format {name!r}; formats are {known}") from None


def layout_of(table: SourceTable, kind: Kind, name: str) -> Layout:
    """The first layout of format `name` that the file's columns fit. Raises ImportFailed."""
    layouts = format_named(name).layouts[kind]
    layout = fitting(layouts, table.columns)
    if layout is not None:
        return layout
    columns = set(table.columns)
    nearest = min(layouts, key=lambda layout: len(set(layout.required) - columns))
    lacking = [column for column in nearest.required if column not in columns]
    raise ImportFailed(
        f"{table.path}, line {table.header_line}: no column {', '.join(lacking)}; "
        f"{kind} in format {name} need {', '.join(nearest.required)}, "
        f"the file has {_few(table.columns)}{_hint(table)}"
    )


def fitting(layouts: Iterable[Layout], columns: Collection[str]) -> Layout | None:
    """The first layout whose columns are there."""
    there = set(columns)
    return next((layout for layout in layouts if there.issuperset(layout.required)), None)


def _few(columns: tuple[str, ...]) -> str:
    shown = ", ".join(f"{column:.40}" for column in columns[:12])
    return shown + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def _hint(table: SourceTable) -> str:
    fits = [
        f"import {kind} --format {name}"
        for name, known in FORMATS.items()
        for kind, layouts in known.layouts.items()
        if fitting(layouts, table.columns)
    ]
    return f"; it would fit: {' or '.join(fits)}" if fits else ""
