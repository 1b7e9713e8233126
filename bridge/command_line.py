"""What the programs `bridge` and `cohort` have in common.

A command's module is imported when the command is used: all of them take several times as long as one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typer.main import get_command

from bridge.errors import ProjectError

EXIT_PARTIAL, EXIT_USAGE = 1, 2


def program(about: str, commands: Mapping[str, str]) -> typer.Typer:
    """A program of commands: name → `module:function`, or `module:app` for what has commands of its own."""

    class Group(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings | {"commands": _Commands(commands)})

    return typer.Typer(
        cls=Group,
        callback=_nothing,
        help=about,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )


def run(app: typer.Typer, name: str) -> None:
    """Runs the program: an error of the project is one clear message and exit code 2, never a traceback."""
    try:
        app()
    except ProjectError as error:
        Console(stderr=True).print(f"{name}: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)


class _Commands(Mapping[str, Any]):
    """The commands by their names, imported as they are asked for. Help of the program asks for all."""

    def __init__(self, where: Mapping[str, str]) -> None:
        self._where = where

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._where[name].partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            group = get_command(found)
            group.name = name
            return group
        one = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        one.command(name)(found)
        return get_command(one)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def _nothing() -> None:
    """Before every command."""
