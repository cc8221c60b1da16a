"""Messages of errors: one line that a terminal shows, whatever a name is."""

from __future__ import annotations

from tuner.errors import unknown_name


def test_an_unknown_name_is_told_with_the_nearest_or_all() -> None:
    names = ["chat", "code", "reasoning"]
    assert (
        unknown_name("workload", "chta", names) == "unknown workload 'chta'; did you mean 'chat'?"
    )
    expected = "unknown workload 'x'; allowed: chat, code, reasoning"
    assert unknown_name("workload", "x", reversed(names)) == expected


def test_names_of_any_length_and_number_fit_one_message() -> None:
    long = "n" * 5000
    assert len(unknown_name("study", "x", [long, "y"])) < 200
    assert len(unknown_name("study", long, [f"{long}!"])) < 250
    many = unknown_name("flag", "x", [f"flag_number_{n}" for n in range(500)])
    assert len(many) < 2000
    told = many.count("flag_number_")
    assert many.endswith(f" and {500 - told} more") and told > 50
