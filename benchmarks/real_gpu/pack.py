"""Pack vLLM for a GPU machine that nothing can be fetched on, into one small archive.

    python benchmarks/real_gpu/pack.py .gpu

The machine has Python 3.12, torch 2.11.0+cu130, transformers and the like. What it lacks is packed:
vLLM without the kernels of other architectures (590 MB become 20 MB), what vLLM imports, and what
the tuner imports. Unpack it and put the folder first on PYTHONPATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fat_binary import MACHINE_CODE, Entry, keep_only

VLLM = "vllm==0.22.1"
HOPPER = 90
NEEDED = Path(__file__).with_name("needed.txt")
# Parts of the wheel that a dense model in bf16 or fp8 on a Hopper GPU never loads.
UNUSED = (
    "vllm/vllm-rs",
    "vllm/third_party/deep_gemm",
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
    "vllm/_flashmla_C.abi3.so",
    "vllm/_flashmla_extension_C.abi3.so",
    "vllm/entrypoints/serve/instrumentator/static",
    "pycountry/locales",
    "mistral_common/data",
    "xgrammar/lib",
    "sqlalchemy/testing",
)
_PLATFORMS = ("manylinux_2_28", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1")


def main(target: Path) -> None:
    """Write `target/site.tar.xz`."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheels, site = Path(scratch, "wheels"), Path(scratch, "site")
        _download(wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        _trim(site)
        archive = target / "site.tar.xz"
        subprocess.run(
            ["tar", "-c", "-I", "xz -1", "-f", archive, "-C", scratch, "site"], check=True
        )
    print(f"{archive.stat().st_size / 2**20:.1f} MiB in {archive}")


def _download(wheels: Path) -> None:
    platforms = [f"--platform={name}_x86_64" for name in _PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
    only = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp", *platforms]
    subprocess.run([*command, *only, VLLM, "--requirement", NEEDED], check=True)


def _trim(site: Path) -> None:
    for name in UNUSED:
        path = site / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for library in site.rglob("vllm/**/*.so"):
        keep_only(library, _runs_on_hopper)
    subprocess.run(["strip", *site.rglob("xgrammar/*.so")], check=True)
    _know_only_fp8(site / "vllm/model_executor/layers/quantization/__init__.py")


def _know_only_fp8(table: Path) -> None:
    """Return fp8 before the table imports every quantization: some need packages of 100 MB."""
    text = table.read_text()
    before = "    # lazy import to avoid triggering `torch.compile` too early\n"
    if text.count(before) != 1:
        raise SystemExit(f"{VLLM}: {table.name} has changed; see get_quantization_config")
    early = '    if quantization == "fp8":\n        from .fp8 import Fp8Config\n\n'
    early += "        return Fp8Config\n"
    table.write_text(text.replace(before, early + before))


def _runs_on_hopper(entry: Entry, code: bytes) -> bool:
    """Say whether a dense model with a head size of 128 runs this code on a Hopper GPU.

    Weights and KV cache are bf16 or fp8; FlashAttention's half precision is left out.
    """
    if entry.kind != MACHINE_CODE or entry.architecture != HOPPER:
        return False
    if b"FlashAttnFwdSm90" not in code:
        return True
    head_of_128 = (b"Li128ENS_10bfloat16_tEfNS_4arch", b"Li128ENS_12float_e4m3_tEfNS_4arch")
    return any(name in code for name in head_of_128) and b"half_t" not in code


if __name__ == "__main__":
    main(Path(sys.argv[1]))
