"""The packed vLLM's program, after a first line that names its Python (environment.sh writes it).

What it says of itself is asked once, because that takes an import of 10 s.
"""

import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

if __name__ == "__main__":
    words = sys.argv[1:]
    whole = [sys.executable, "-m", "vllm.entrypoints.cli.main", *words]
    if "--version" in words or any(word.startswith("--help") for word in words):
        said = Path(__file__).with_name(f"said-{crc32(' '.join(words).encode())}")
        if not said.exists():
            new = said.with_suffix(f".{os.getpid()}")
            new.write_bytes(subprocess.run(whole, stdout=subprocess.PIPE, check=True).stdout)
            new.rename(said)
        sys.stdout.write(said.read_text())
    else:
        from vllm.entrypoints.cli.main import main

        sys.exit(main())
