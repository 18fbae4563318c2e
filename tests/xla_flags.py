"""Flags of XLA for a test run, which compiles thousands of small programs and runs each once."""


def fast_compilation() -> str:
    """Flags that shorten compilation. XLA ends the process at a flag that its version lacks.

    `--xla_cpu_use_fusion_emitters=false` is not among them: it compiles three times as fast, and with
    jaxlib 0.10.2 gives wrong numbers (a batch of a ResNet with GroupNorm differs from its examples by 2 %).
    """
    return " ".join(
        [
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            "--xla_cpu_parallel_codegen_split_count=1",
        ]
    )
