"""Stored studies changed by their owner: renamed, deleted, with a note."""

from __future__ import annotations

from tuner import DEFAULT_STORE
from tuner.errors import UsageError
from tuner.host.plain_text import plain_text
from tuner.host.state_folder import state_folder
from tuner.spec.study import LONGEST_STUDY_NAME, STUDY_NAME
from tuner.store import Store
from tuner.store.upkeep import editing

_MOST_CHARACTERS = 1000


def rename_study(old: str, new: str, store: str = DEFAULT_STORE) -> None:
    """Rename a study; raises `UsageError` for a name that is taken or has other characters."""
    if STUDY_NAME.fullmatch(new) is None:
        raise UsageError(f"'{new}' cannot be a study's name; use letters, digits, '.', '_' and '-'")
    if len(new.encode()) > LONGEST_STUDY_NAME:
        raise UsageError(f"a study's name has at most {LONGEST_STUDY_NAME} bytes; shorten '{new}'")
    if new == old:
        raise UsageError(f"study '{old}' has that name already; give another")
    with Store.open(store, create=False) as opened:
        editing.rename_study(opened, old, new, state_folder())


def delete_study(name: str, store: str = DEFAULT_STORE) -> None:
    """Delete a study with its trials, its raw records and its measurement log."""
    with Store.open(store, create=False) as opened:
        editing.delete_study(opened, name, state_folder())


def note_study(name: str, note: str, store: str = DEFAULT_STORE) -> None:
    """Write a note on a study, which lists and reports show; an empty one removes it."""
    shown = plain_text(note).strip()
    if len(shown) > _MOST_CHARACTERS:
        raise UsageError(f"the note has {len(shown)} characters; at most {_MOST_CHARACTERS}")
    with Store.open(store, create=False) as opened:
        editing.set_note(opened, name, shown or None)
