"""A relation as Spark SQL (4.0 or newer), for sessions in UTC; views with a repeat need
spark.sql.analyzer.maxIterations of 1000. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from bridge.errors import InvalidQuery
from cohort.dialects.writer import Writer, checked_text
from cohort.expression import Aggregate, Filter, Function, Scalar, Transform
from cohort.relation import Ndjson, Relation, Unnest


def sql(relation: Relation) -> str:
    """The relation as one SELECT. Raises InvalidQuery for what cannot be said alike in every dialect."""
    return _Spark().statement(relation)


class _Spark(Writer):
    leave_out: ClassVar = "EXCEPT"
    row_id: ClassVar = "monotonically_increasing_id()"
    types: ClassVar = {
        Scalar.TEXT: "STRING", Scalar.INTEGER: "BIGINT", Scalar.DOUBLE: "DOUBLE", Scalar.BOOLEAN: "BOOLEAN",
        Scalar.DATE: "DATE", Scalar.MOMENT: "TIMESTAMP",
    }  # fmt: skip
    functions: ClassVar = {
        Function.LENGTH: "char_length({0})", Function.CONTAINS: "contains({0}, {1})",
        Function.STARTS_WITH: "startswith({0}, {1})", Function.MATCHES: "regexp_like({0}, {1})",
        Function.YEARS_BEFORE: "add_months({0}, CAST(-12 * {1} AS INT))",
        Function.DAYS_AFTER: "date_add({0}, CAST({1} AS INT))", Function.DAYS_BETWEEN: "datediff({1}, {0})",
        Function.MONTH_START: "trunc({0}, 'MM')", Function.DAY: "CAST({0} AS DATE)", Function.SIZE: "array_size({0})",
        Function.ITEM: "try_element_at({0}, CAST({1} AS INT))", Function.LAST: "try_element_at({0}, -1)",
        Function.JOIN_TEXTS: "array_join({0}, {1})",
        Function.AS_JSON: "to_json({0})",
        Function.SUBSTRING: "substring({0}, CAST({1} AS INT), CAST({2} AS INT))",
        Function.FAIL: "raise_error({0})",
    }  # fmt: skip

    def name(self, name: str) -> str:
        return "`" + _no_substitution(name).replace("`", "``") + "`"

    def text(self, value: str) -> str:
        # $ is escaped because Spark replaces ${…} anywhere in the text of a statement, before it reads it
        escaped = checked_text(value).replace("\\", "\\\\").replace("'", "\\'").replace("$", "\\u0024")
        return f"'{escaped}'"

    def struct_type(self, fields: Iterable[tuple[str, str]]) -> str:
        return f"STRUCT<{', '.join(f'{self.name(name)}: {kind}' for name, kind in fields)}>"

    def list_type(self, item: str) -> str:
        return f"ARRAY<{item}>"

    def field(self, of: str, name: str) -> str:
        return f"{of}.{self.name(name)}"

    def make_list(self, items: list[str]) -> str:
        return f"array({', '.join(items)})"

    def make_struct(self, fields: list[tuple[str, str]]) -> str:
        return f"named_struct({', '.join(f'{self.text(name)}, {value}' for name, value in fields)})"

    def over_items(self, kind: type[Transform | Filter], of: str, variable: str, body: str) -> str:
        return f"{'transform' if kind is Transform else 'filter'}({of}, {variable} -> {body})"

    def function(self, function: Function, arguments: list[str]) -> str:
        if function is Function.LIST_CONCAT:
            return f"concat({', '.join(f'coalesce({a}, array())' for a in arguments)})"
        return super().function(function, arguments)

    def list_aggregate(self, aggregate: Aggregate) -> str:
        value, condition = self.listed(aggregate)
        keys = [(f"k{n}", self.expression(o.by)) for n, o in enumerate(aggregate.order)]
        found = f"collect_list({self.make_struct([*keys, ('v', value)])}){condition}"
        if keys:
            compare = "0"
            for n, key in reversed(list(enumerate(aggregate.order))):
                low, high = (1, -1) if key.descending else (-1, 1)
                one, two = f"l.k{n}", f"r.k{n}"
                compare = (
                    f"CASE WHEN {one} <=> {two} THEN {compare} WHEN {one} IS NULL THEN 1 WHEN {two} IS NULL THEN -1 "
                    f"WHEN {one} < {two} THEN {low} ELSE {high} END"
                )
            found = f"array_sort({found}, (l, r) -> {compare})"
        return f"transform({found}, s -> s.v)"

    def ndjson(self, source: Ndjson) -> str:
        path = _no_substitution(source.path).replace("`", "``")
        fields = ", ".join(f"{self.name(name)} {self.type(kind)}" for name, kind in source.row.fields)
        read = f"from_json(value, {self.text(fields)}, map('mode', 'FAILFAST'))"
        return f"SELECT line.* FROM (SELECT {read} AS line FROM text.`{path}` WHERE trim(value) <> '')"

    def unnest(self, unnest: Unnest, source: str, of: str) -> str:
        outer, item = "_outer" if unnest.keep_empty else "", self.name(unnest.item)
        if not unnest.index:
            return f"SELECT *, explode{outer}({of}) AS {item} FROM {source}"
        index = self.name(unnest.index)
        exploded = f"SELECT *, posexplode{outer}({of}) AS ({index}, {item}) FROM {source}"
        # the row of an empty list has no place
        return f"SELECT * EXCEPT ({index}), coalesce({index}, 0) AS {index} FROM ({exploded})" if outer else exploded


def _no_substitution(name: str) -> str:
    if "${" in checked_text(name):
        raise InvalidQuery("Spark cannot use a name or a path with ${ in it")
    return name
