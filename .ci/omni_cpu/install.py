"""Replace what the registry builds for CUDA alone by stand-ins; the argument is site-packages."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

_STUB = '''"""Stands in for torchaudio, whose build needs CUDA: attributes are empty classes."""

import importlib.abc
import importlib.machinery
import sys
import types

__version__ = "0"
__path__ = []


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        is_ours = name.startswith(__name__ + ".")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_ours else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__getattr__ = __getattr__


sys.meta_path.append(_Submodules())
'''


def main(site: Path) -> None:
    """Change the files of an environment."""
    # its operators are not there without CUDA, and neither is what these register
    (site / "torchvision" / "_meta_registrations.py").write_text("")
    shutil.rmtree(site / "torchaudio", ignore_errors=True)
    (site / "torchaudio").mkdir()
    (site / "torchaudio" / "__init__.py").write_text(_STUB)
    for folder in site.glob("torchcodec*"):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
