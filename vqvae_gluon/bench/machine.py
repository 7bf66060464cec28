"""The machine that measures."""

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any, Optional

from vqvae_gluon.workers import processor_count

_CPU = Path("/sys/devices/system/cpu/cpu0")
_LIBRARIES = ("mxnet", "numpy", "onnxruntime", "torch")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe(threads: int) -> dict[str, Any]:
    """Processor, caches, system and versions of the libraries."""
    info = _read(Path("/proc/cpuinfo"))
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    memory = next((line.split()[1] for line in _read(Path("/proc/meminfo")).splitlines() if "MemTotal" in line), "0")
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "family_model_stepping": "/".join(fields.get(name, "?") for name in ("cpu family", "model", "stepping")),
        "vector_instructions": [flag for flag in _FLAGS if flag in flags],
        "processors": os.cpu_count(),
        "processors_used": processor_count(),
        "threads": threads,
        "caches": _caches(),
        "memory_mib": int(memory) // 1024,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def version(package: str) -> Optional[str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _caches() -> dict[str, str]:
    """Size of each of the first processor's caches."""
    found = {}
    for path in sorted((_CPU / "cache").glob("index*")):
        kind = _read(path / "type")
        found[f"L{_read(path / 'level')}{'' if kind == 'Unified' else kind[:1].lower()}"] = _read(path / "size")
    return found


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
