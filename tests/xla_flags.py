"""Flags of XLA for a test run, which compiles thousands of small programs and runs each once."""

import importlib.metadata


def fast_compilation() -> str:
    """Flags that shorten compilation. XLA ends the process at a flag that its version lacks."""
    flags = [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    if version < (0, 11):  # the older emitters compile three times as fast
        flags.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(flags)
