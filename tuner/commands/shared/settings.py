"""Settings: options that the environment or the user's file gives, where the command line does not.

For `--slo` of `tuner run` that is the variable `TUNER_RUN_SLO`, and `slo` under `[run]` in the
file. The command line comes first, then the environment, then the file. What is shared, such as the
store, may be given once for every command: `TUNER_STORE`, and `store` under `[all]`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tuner.errors import UsageError, unknown_name

SHARED = ("store", "vllm", "notify")
_ALL = "all"


@dataclass(frozen=True, slots=True)
class Setting:
    """A value for an option, and its place: a variable, or a key of the user's file."""

    value: Any
    place: str
    is_of_file: bool


class Settings:
    """The settings of every command, by the path of its name: `("workload", "import")`."""

    def __init__(self, found: Mapping[tuple[str, ...], Mapping[str, Setting]]) -> None:
        self._found = found
        self._used: list[Setting] = []

    def default_map(self) -> dict[str, Any]:
        """Return the values as Click reads them: by command, then by its parameter's name."""
        whole: dict[str, Any] = {}
        for path, by_name in self._found.items():
            group = whole
            for name in path[:-1]:
                group = group.setdefault(name, {})
            group[path[-1]] = _Defaults(by_name, self._used)
        return whole

    def of_file(self, *command: str) -> set[str]:
        """Return the parameters of a command whose values in use are the file's."""
        by_name = self._found.get(command, {})
        return {name for name, s in by_name.items() if s.is_of_file and s in self._used}

    def place_of(self, parameter: str) -> str | None:
        """Return the place whose value was used for a parameter of the command, or None."""
        found = [
            s for by_name in self._found.values() for n, s in by_name.items() if n == parameter
        ]
        return next((s.place for s in found if s in self._used), None)

    def places(self) -> list[str]:
        """Return the places of all values in use."""
        return list(dict.fromkeys(setting.place for setting in self._used))


class _Defaults(dict[str, Any]):
    """Click asks it for what the command line does not say; it remembers what was asked for."""

    def __init__(self, settings: Mapping[str, Setting], used: list[Setting]) -> None:
        super().__init__({name: setting.value for name, setting in settings.items()})
        self._settings, self._used = settings, used

    def get(self, name: str, default: Any = None, /) -> Any:
        if name in self._settings:
            self._used.append(self._settings[name])
        return super().get(name, default)


def read_settings(group: Any, words: Sequence[str]) -> Settings:
    """Read the environment and the user's file for the command that `words` call.

    `group` is the Click group of all commands. Raises `UsageError` for a file that cannot be read,
    and for a key or a value that fits nothing.
    """
    from tuner.api.user_file import read_user_file, user_file

    path = user_file()
    said = {} if path is None else read_user_file(path)
    shown = "" if path is None else _shown(path)
    if said:
        _check_keys(said, dict(_commands(group, group.commands)), shown)
    return Settings(
        {
            name: _of_file(name, options, said, shown) | _of_environment(name, options)
            for name, options in _called(group, words)
        }
    )


def require_known_variables(group: Any, words: Sequence[str]) -> None:
    """Raise `UsageError` for a variable that was surely meant for an option of this command line.

    Others that begin with `TUNER_` are left alone: an orchestrator may have set them.
    """
    for command, options in _called(group, words):
        if tuple(words[: len(command)]) != command:
            continue
        prefix = "_".join(("TUNER", *command, "")).upper()
        names = [name.upper() for name in options]
        for variable in os.environ:
            name = variable.removeprefix(prefix)
            if name == variable or name in names:
                continue
            if close := get_close_matches(name, names, n=1, cutoff=0.75):
                raise UsageError(f"unknown variable {variable}; did you mean {prefix}{close[0]}?")


_Commands = Iterator[tuple[tuple[str, ...], dict[str, Any]]]


def _called(group: Any, words: Sequence[str]) -> _Commands:
    """Yield the command that `words` call, or the commands of the group that they name."""
    names = (word for word in words if word in group.commands)
    return _commands(group, [name] if (name := next(names, None)) else [])


def _commands(group: Any, names: Iterable[str], *above: str) -> _Commands:
    """Yield the commands of these names with their options by the name that settings give them."""
    for name in names:
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from _commands(command, command.commands, *above, name)
        else:
            options = [p for p in command.params if p.param_type_name == "option"]
            yield (*above, name), {setting_name(option): option for option in options}


def setting_name(option: Any) -> str:
    """Return the name of an option in settings: `max_window_s` of `--max-window-s`."""
    longest: str = max(option.opts, key=len)
    return longest.lstrip("-").replace("-", "_")


def _of_environment(command: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, Setting]:
    found = {}
    for name, option in options.items():
        variables = ["_".join(("TUNER", *command, name)).upper()]
        if name in SHARED:
            variables.append(f"TUNER_{name.upper()}")
        for variable in variables:
            if text := os.environ.get(variable):
                value = _words(variable, text) if option.multiple else _with_home(text)
                found[option.name] = Setting(value, variable, is_of_file=False)
                break
    return found


def _words(variable: str, text: str) -> list[str]:
    try:
        return [_with_home(word) for word in shlex.split(text)]
    except ValueError:
        raise UsageError(
            f"{variable}: a quotation mark is not closed (values are separated as in a shell)"
        ) from None


def _of_file(
    command: tuple[str, ...], options: Mapping[str, Any], said: Mapping[str, Any], file: str
) -> dict[str, Setting]:
    table: Any = said
    for name in command:
        table = table.get(name, {})
    found = {}
    for section, values in ((_ALL, said.get(_ALL, {})), (".".join(command), table)):
        for name, value in values.items():
            if (option := options.get(name)) is None:
                continue  # a shared one that this command does not have
            place = f"{section}.{name} in {file}"
            fitting = _fitting(option, value, place)
            found[option.name] = Setting(fitting, place, is_of_file=True)
    return found


def _fitting(option: Any, value: Any, place: str) -> Any:
    if option.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{place}: this is true or false")
        return value
    values = value if option.multiple and isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            kind = (
                "a text or a number, or a list of them" if option.multiple else "a text or number"
            )
            raise UsageError(f"{place}: this is {kind}")
    plain = [_with_home(one) if isinstance(one, str) else one for one in values]
    return plain if option.multiple else plain[0]


def _check_keys(
    said: Mapping[str, Any], commands: Mapping[tuple[str, ...], Mapping[str, Any]], file: str
) -> None:
    """Raise `UsageError` for a key that no command reads."""
    known = {**commands, (_ALL,): dict.fromkeys(SHARED)}
    for name, value in said.items():
        _check_table((name,), value, known, file)


def _check_table(
    path: tuple[str, ...],
    table: Any,
    commands: Mapping[tuple[str, ...], Mapping[str, Any]],
    file: str,
) -> None:
    if path in commands:
        if not isinstance(table, Mapping):
            raise UsageError(f"{file}: [{'.'.join(path)}] is a table of options")
        for name in table:
            if name not in commands[path]:
                what = f"option under [{'.'.join(path)}]"
                raise UsageError(f"{file}: {unknown_name(what, name, commands[path])}")
        return
    depth = len(path)
    below = {known[:depth] for known in commands}
    if path not in below or not isinstance(table, Mapping):
        names = {known[depth - 1] for known in commands if known[: depth - 1] == path[:-1]}
        raise UsageError(f"{file}: {unknown_name('table', path[-1], names)}")
    for name, value in table.items():
        _check_table((*path, name), value, commands, file)


def _with_home(text: str) -> str:
    """Return a path with the home folder for `~`: no shell has read it."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def _shown(path: Path) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - it raises nothing without a home
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
