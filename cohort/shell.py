"""`cohort shell`: SQL and questions asked one after another at a terminal, or read from standard input."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridge.errors import InvalidQuery, ProjectError
from cohort.answer import Answer
from cohort.catalogue import questions
from cohort.options import pair
from cohort.render import BINARY, FORMATS, rendered, table
from cohort.schema import catalogue

PROMPT, CONTINUED = "cohort> ", "   ...> "
HELP = """SELECT …;                    ask the tables; a statement ends with ;
.ask QUESTION [NAME=VALUE …]   answer a ready question, or a .yaml or .json document
.questions                     the ready questions
.tables [TABLE]                the tables, or one table's columns
.format FORMAT                 table, csv, json, ndjson
.help   .quit
"""


@dataclass
class Shell:
    """Reads lines until there are none. What is asked goes to `sql` (a SELECT) or `ask` (a question and the values of
    its parameters); what is wrong is told, and the next line is read."""

    sql: Callable[[str], Answer]
    ask: Callable[[str, Mapping[str, str]], Answer]
    console: Console
    format: str = "table"

    def run(self, lines: Iterator[str | None]) -> int:
        """How many of the statements failed. None among the lines gives up what was begun."""
        failed, statement = 0, ""
        for line in lines:
            if line is None:
                statement = ""
                continue
            if not statement and line.strip().startswith("."):
                if line.split()[0] in (".quit", ".exit"):
                    return failed
                failed += self._told(partial(self._command, line))
                continue
            statement = f"{statement}\n{line}".strip()
            if statement.endswith(";"):
                asked, statement = statement.rstrip("; \n"), ""
                failed += self._told(partial(self._select, asked)) if asked else 0
        if statement:
            failed += self._told(partial(self._select, statement))
        return failed

    def _told(self, do: Callable[[], None]) -> int:
        try:
            do()
        except ProjectError as error:
            self.console.print(escape(str(error)), style="red", soft_wrap=True, highlight=False)
            return 1
        except KeyboardInterrupt:
            self.console.print("ended")
            return 1
        return 0

    def _select(self, text: str) -> None:
        self._show(self.sql(text))

    def _command(self, line: str) -> None:
        try:
            name, *words = shlex.split(line)
        except ValueError:
            raise InvalidQuery("a quotation mark is missing") from None
        match name, words:
            case ".help", []:
                self.console.print(HELP, highlight=False, markup=False)
            case ".ask", [question, *given]:
                self._show(self.ask(question, dict(map(pair, given))))
            case ".questions", []:
                self._listed(("question", "what it gives"), [(q.name, q.title) for q in questions().values()])
            case ".tables", []:
                self._listed(("table", "what it holds"), [(t.name, t.title) for t in catalogue().values()])
            case ".tables", [wanted] if wanted in catalogue():
                columns = [(c.name, c.type, c.unit, c.description) for c in catalogue()[wanted].columns]
                self._listed(("column", "type", "unit", "what it holds"), columns)
            case ".format", [kind] if kind in FORMATS and kind not in BINARY:
                self.format = kind
            case _:
                raise InvalidQuery(f"{line.strip()[:60]}: not understood; .help lists the commands")

    def _listed(self, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        made = Table(*head)
        for row in rows:
            made.add_row(*map(escape, row))
        self.console.print(made)

    def _show(self, answer: Answer) -> None:
        if self.format == "table":
            self.console.print(table(answer, self.console.width))
        else:
            text = rendered(answer, self.format).decode()
            self.console.print(text.rstrip("\n"), soft_wrap=True, highlight=False, markup=False)
        for note in answer.notes:
            self.console.print(f"Note: {escape(note)}", style="dim", soft_wrap=True)
        if answer.truncated:
            self.console.print("There are more rows: raise --limit to see them", style="dim")


def typed() -> Iterator[str | None]:
    """Lines that a person types, with history and completion of names; ^C gives a statement up, ^D ends."""
    with suppress(ImportError):
        readline = import_module("readline")
        words = sorted({*catalogue(), *questions(), *(c.name for t in catalogue().values() for c in t.columns)})
        readline.set_completer(lambda start, n: [*(w for w in words if w.startswith(start)), None][n])
        readline.set_completer_delims(" \t\n,()=<>.;")
        readline.parse_and_bind("tab: complete")
    begun = False
    while True:
        try:
            line: str | None = input(CONTINUED if begun else PROMPT)
        except EOFError:
            return
        except KeyboardInterrupt:
            line = None
        if line is None:
            begun = False
        elif line.strip():
            begun = not (line.rstrip().endswith(";") or (not begun and line.lstrip().startswith(".")))
        yield line


def piped() -> Iterator[str | None]:
    """Lines of standard input."""
    yield from (line.rstrip("\n") for line in sys.stdin)
