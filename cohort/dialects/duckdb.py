"""A relation as DuckDB SQL. Pure; the connection's time zone does not matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from cohort.dialects.writer import Writer, checked_text
from cohort.expression import Aggregate, Filter, Function, Scalar, Transform
from cohort.relation import JoinKind, Ndjson, Relation, Unnest

LARGEST_LINE = 67_108_864
"""Bytes of one resource; a longer line makes the query fail. Every thread holds twice as much."""


def sql(relation: Relation) -> str:
    """The relation as one SELECT. Raises InvalidQuery for what cannot be said alike in every dialect."""
    return _DuckDB().statement(relation)


class _DuckDB(Writer):
    leave_out: ClassVar = "EXCLUDE"
    row_id: ClassVar = "row_number() OVER ()"
    types: ClassVar = {
        Scalar.TEXT: "VARCHAR", Scalar.INTEGER: "BIGINT", Scalar.DOUBLE: "DOUBLE", Scalar.BOOLEAN: "BOOLEAN",
        Scalar.DATE: "DATE", Scalar.MOMENT: "TIMESTAMP WITH TIME ZONE",
    }  # fmt: skip
    joins: ClassVar = {
        JoinKind.INNER: "JOIN", JoinKind.LEFT: "LEFT JOIN", JoinKind.SEMI: "SEMI JOIN", JoinKind.ANTI: "ANTI JOIN"
    }  # fmt: skip
    functions: ClassVar = {
        Function.LENGTH: "length({0})", Function.CONTAINS: "contains({0}, {1})",
        Function.STARTS_WITH: "starts_with({0}, {1})", Function.MATCHES: "regexp_matches({0}, {1})",
        Function.YEARS_BEFORE: "CAST({0} - to_years(CAST({1} AS INTEGER)) AS DATE)",
        Function.DAYS_AFTER: "({0} + CAST({1} AS INTEGER))", Function.DAYS_BETWEEN: "({1} - {0})",
        Function.MONTH_START: "CAST(date_trunc('month', {0}) AS DATE)",
        Function.DAY: "CAST(timezone('UTC', {0}) AS DATE)", Function.SIZE: "len({0})",
        Function.ITEM: "list_extract({0}, {1})", Function.LAST: "list_extract({0}, -1)",
        Function.JOIN_TEXTS: "array_to_string({0}, {1})",
        Function.AS_JSON: "CAST(to_json({0}) AS VARCHAR)",
        Function.FAIL: "error({0})",
    }  # fmt: skip

    def name(self, name: str) -> str:
        return '"' + checked_text(name).replace('"', '""') + '"'

    def text(self, value: str) -> str:
        return "'" + checked_text(value).replace("'", "''") + "'"

    def struct_type(self, fields: Iterable[tuple[str, str]]) -> str:
        return f"STRUCT({', '.join(f'{self.name(name)} {kind}' for name, kind in fields)})"

    def list_type(self, item: str) -> str:
        return f"{item}[]"

    def field(self, of: str, name: str) -> str:
        return f"struct_extract({of}, {self.text(name)})"

    def make_list(self, items: list[str]) -> str:
        return f"[{', '.join(items)}]"

    def make_struct(self, fields: list[tuple[str, str]]) -> str:
        return f"struct_pack({', '.join(f'{self.name(name)} := {value}' for name, value in fields)})"

    def over_items(self, kind: type[Transform | Filter], of: str, variable: str, body: str) -> str:
        function = "list_transform" if kind is Transform else "list_filter"
        return f"{function}({of}, lambda {variable}: {body})"

    def function(self, function: Function, arguments: list[str]) -> str:
        if function is Function.LIST_CONCAT:
            return f"({' || '.join(f'coalesce({a}, [])' for a in arguments)})"
        return super().function(function, arguments)

    def list_aggregate(self, aggregate: Aggregate) -> str:
        value, condition = self.listed(aggregate)
        order = f" ORDER BY {self.order(aggregate.order)}" if aggregate.order else ""
        return f"coalesce(list({value}{order}){condition}, [])"

    def ndjson(self, source: Ndjson) -> str:
        columns = ", ".join(f"{self.text(name)}: {self.text(self.type(kind))}" for name, kind in source.row.fields)
        return (
            f"SELECT * FROM read_json({self.text(source.path)}, format='newline_delimited', columns={{{columns}}}, "
            f"maximum_object_size={LARGEST_LINE})"
        )

    def unnest(self, unnest: Unnest, source: str, of: str) -> str:
        # in the projection: lateral joins are several times slower; two unnests of one projection go in step
        if unnest.keep_empty:
            of = f"coalesce(nullif({of}, []), [NULL])"
        places = f", generate_subscripts({of}, 1) - 1 AS {self.name(unnest.index)}" if unnest.index else ""
        return f"SELECT *, unnest({of}) AS {self.name(unnest.item)}{places} FROM {source}"
