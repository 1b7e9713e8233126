"""Reads the code tables of `mappings/codes`, and a site's own, into the values that the translation is handed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from bridge.concept_maps import concept_map, concept_maps
from bridge.translate.codes import Code, CodeTables, UnmappedCodes, normal_body_part
from bridge.translate.explanation import AttributeRule, AttributeTable, Kind, Level
from bridge.translate.occurrences import Path as AttributePath
from bridge.translate.rows import RowColumn


def _table(name: str) -> Iterator[dict[str, str]]:
    yield from csv.DictReader((files("mappings") / "codes" / name).read_text("utf-8").splitlines())


@lru_cache(maxsize=1)
def code_tables() -> CodeTables:
    """modality.csv, body_part.csv, coding_scheme.csv and body_part_synonyms.json."""
    return CodeTables(
        modality={row["code"]: (row["display"], row["acquisition"] == "yes") for row in _table("modality.csv")},
        body_part={
            normal_body_part(row["body_part_examined"]): Code(row["system"], row["code"], row["display"])
            for row in _table("body_part.csv")
        },
        coding_scheme={row["designator"]: row["system"] for row in _table("coding_scheme.csv")},
        concept_map=concept_map(
            (files("mappings") / "codes" / "body_part_synonyms.json").read_bytes(), "body_part_synonyms.json"
        ),
    )


def site_code_tables(
    code_maps: Path | None, coding_schemes: Mapping[str, str], unmapped: UnmappedCodes, local_system: str
) -> CodeTables:
    """The project's tables with a site's schemes and concept maps, which come first. Raises ConfigError."""
    own = code_tables()
    return replace(
        own,
        coding_scheme={**own.coding_scheme, **coding_schemes},
        concept_map={**own.concept_map, **concept_maps(code_maps)},
        unmapped=unmapped,
        local_system=local_system,
    )


@lru_cache(maxsize=1)
def dicom_columns() -> tuple[RowColumn, ...]:
    """dicom_columns.csv: the columns of dicom_study, dicom_series and dicom_instance."""
    return tuple(
        RowColumn(
            row["table"],
            row["column"],
            row["type"],
            row["unit"],
            tuple(filter(None, row["keyword"].split("|"))),
            row["source"],
        )
        for row in _table("dicom_columns.csv")
    )


@lru_cache(maxsize=1)
def attribute_table() -> AttributeTable:
    """attributes.csv: where every attribute goes; attribute_levels.csv: what it describes."""
    rules: dict[AttributePath, tuple[AttributeRule, ...]] = {}
    for row in _table("attributes.csv"):
        path = tuple(row["attribute"].split("."))
        rule = AttributeRule(path, row["element"], Kind(row["outcome"]), row["rule"], row["source"])
        rules[path] = (*rules.get(path, ()), rule)
    return AttributeTable(rules, {row["keyword"]: Level(row["level"]) for row in _table("attribute_levels.csv")})
