"""vLLM-Omni on a CPU, for tests: a platform plugin, stand-ins for packages, tiny pipelines."""


def platform() -> str:
    """Return the class of the platform, as vLLM-Omni's plugins do."""
    return "omni_cpu.platform.CpuOmniPlatform"
