"""The group of all commands: it reads the settings, and names their places in errors."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from tuner.commands.shared.settings import Settings, read_settings, require_known_variables
from tuner.errors import UsageError


class SettingsGroup(TyperGroup):
    """A group whose options may come from `TUNER_*` variables and from the user's file."""

    def make_context(
        self, info_name: Any, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Read the settings, except for help, which shows no value of anybody."""
        if "--help" not in args and args:
            if extra.get("resilient_parsing"):
                settings = _settings_or_none(self, args)
            else:
                settings = read_settings(self, args)
                require_known_variables(self, args)
            extra |= {"default_map": settings.default_map(), "obj": settings}
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what is wrong with a setting is said of its place."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            place = _place_of(ctx.obj, error.param)
            if place is None:
                raise
            raise UsageError(f"{place}: {error.message.rstrip('.')}") from None
        except UsageError as error:
            places = ctx.obj.places() if isinstance(ctx.obj, Settings) else []
            if not places or any(place in str(error) for place in places):
                raise
            raise UsageError(f"{error} (not on the command line: {', '.join(places)})") from error


def settings_of(context: typer.Context) -> Settings:
    """Return the settings that a command was started with."""
    found = context.find_root().obj
    return found if isinstance(found, Settings) else Settings({})


def _place_of(settings: Any, parameter: Any) -> str | None:
    if not isinstance(settings, Settings) or parameter is None:
        return None
    return settings.place_of(parameter.name)


def _settings_or_none(group: Any, words: list[str]) -> Settings:
    try:
        return read_settings(group, words)
    except UsageError:  # the shell completes a word; it is told when the command runs
        return Settings({})
