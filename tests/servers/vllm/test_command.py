from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tuner.errors import PreflightError
from tuner.servers.vllm import command as vllm
from tuner.servers.vllm.command import find_vllm, known_flags, parse_flags, vllm_version

HELP = """\
usage: vllm serve [model_tag] [options]

Search by using: `--help=<ConfigGroup>` to explore options by section (e.g.,
  Use `--help=all` to show all available flags at once.

positional arguments:
  model_tag             The model tag to serve (default: None)

options:
  --api-server-count API_SERVER_COUNT, -asc API_SERVER_COUNT
                        How many API server processes to run. See also
                        --not-a-flag here.
  --config CONFIG       Read CLI options from a config file. With --nor-this
  --enforce-eager, --no-enforce-eager
                        Always use eager-mode PyTorch. (default: False)
  --disable-log-stats   Disable logging statistics. (default: False)
  --max-num-seqs MAX_NUM_SEQS
                        Maximum number of sequences (default: None)
  --no-parent           An option whose own name starts with no.
  -h, --help            show this help message and exit
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable} -IS\n{text}")
    path.chmod(0o755)
    return path


def test_flags_are_those_at_the_head_of_an_entry() -> None:
    expected = "api_server_count config enforce_eager disable_log_stats max_num_seqs no_parent help"
    assert parse_flags(HELP) == set(expected.split())


def test_known_flags_asks_the_command(tmp_path) -> None:
    script = f"import sys\nassert sys.argv[1:] == ['serve', '--help=all']\nprint({HELP!r})"
    assert known_flags((str(executable(tmp_path / "vllm", script)),)) == parse_flags(HELP)


def test_something_that_is_no_vllm_is_refused(tmp_path) -> None:
    other = (str(executable(tmp_path / "vllm", "print('hello')")),)
    with pytest.raises(PreflightError, match="lists no --max-num-seqs"):
        known_flags(other)
    with pytest.raises(PreflightError, match="answered no version"):
        vllm_version(other)
    broken = executable(tmp_path / "broken", "raise SystemExit('no module named torch')")
    with pytest.raises(PreflightError, match="failed with code 1: no module named torch"):
        vllm_version((str(broken),))
    with pytest.raises(PreflightError, match="cannot run"):
        vllm_version((str(tmp_path / "nothing"),))


def test_an_answer_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(vllm, "_ASK_DEADLINE_S", 0.3)
    slow = executable(tmp_path / "vllm", "import time\ntime.sleep(60)")
    with pytest.raises(PreflightError, match="did not answer"):
        vllm_version((str(slow),))


def test_the_version_is_the_last_word(fake, tmp_path) -> None:
    assert vllm_version(fake.command) == "0.32.0+cpu"


def test_an_explicit_command_is_used(tmp_path, monkeypatch) -> None:
    odd = executable(tmp_path / "my vllm", "")
    assert find_vllm(str(odd)) == (str(odd),)
    assert find_vllm(f"'{odd}' --verbose") == (str(odd), "--verbose")
    monkeypatch.chdir(tmp_path)
    assert find_vllm("./my vllm") == (str(odd),)


@pytest.mark.parametrize("wrong", ["", "no-such-command", "'open quote", "/etc/passwd"])
def test_a_wrong_explicit_command_is_refused(wrong: str) -> None:
    with pytest.raises(PreflightError, match=r"command|executable"):
        find_vllm(wrong)


def test_beside_this_python_goes_before_the_path(tmp_path, monkeypatch) -> None:
    for folder in ("beside", "path"):
        (tmp_path / folder).mkdir()
    on_path = executable(tmp_path / "path" / "vllm", "")
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    assert find_vllm(None) == (str(on_path),)
    beside = executable(tmp_path / "beside" / "vllm", "")
    assert find_vllm(None) == (str(beside),)
    beside.unlink()
    on_path.unlink()
    with pytest.raises(PreflightError, match=re.escape("pip install vllm")):
        find_vllm(None)
