"""Accelerators that this machine lacks: their rates, compilers, and costs of compiled programs.

A TPU's compiler runs on any Linux machine (``pip install -e ".[tpu]"``, in an environment of its
own). It estimates the cycles of each fused operation, and names the module of the operation.

The compiler for an H100 runs there, too (``pip install "jax[cuda13]"``, in another environment). It
estimates no times, but lists the kernels of a program, with the shapes of the convolutions.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vone_jax import mesh as meshes


@dataclasses.dataclass(frozen=True)
class Chip:
    """The rates of one chip, per second.

    Attributes:
      clock: cycles of the matrix unit.
      operations: dense operations in bfloat16.
      traffic: bytes to and from memory.
      memory: bytes of memory; no rate.
      link: bytes to other chips, in one direction.
    """

    clock: float
    operations: float
    traffic: float
    memory: float
    link: float


# Cloud TPU documentation: 197 and 918 TFLOP/s, 819 and 1638 GB/s, 16 and 32 GB, 400 and 800 GB/s in
# both directions. The clock of v5e follows from four units of 128 x 128; v6e has two of 256 x 256.
CHIPS = {
    "v5e": Chip(1.5e9, 197e12, 819e9, 16e9, 200e9),
    "v6e": Chip(1.75e9, 918e12, 1638e9, 32e9, 400e9),
}
GPU = "h100"
# One GPU, as XLA describes it to its compiler. Data sheet of the H100 SXM.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 core_count: 132 fpus_per_core: 128
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
  clock_rate_ghz: 1.98 cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

# The parts of a network, by patterns of operation names in the order in which they are tried. Flax
# names the modules, and JAX the transposes of a backward pass.
_PARTS = (
    ("V1", r"front_end|VOneBlock"),
    ("stem", r"/stem/"),
    ("bottleneck", r"/bottleneck"),
    ("back end", r"/back_end"),
)
_BACKWARD = re.compile(r"transpose\(")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}
# Larger estimates of the compiler mean that it has none.
_NO_ESTIMATE = 1e12


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a program for one chip, by its compiler. Loops count once, whatever their length.

    Attributes:
      cycles: estimated cycles of each part of the network.
      flops: floating-point operations.
      traffic: bytes read from and written to memory.
      arguments: bytes of arguments and results in memory.
      temporaries: bytes of everything else.
      collectives: number and bytes of exchanges with other chips, for each kind.
      gathers: number of gathers and scatters with a result of a megabyte or more.
      kernels: number of kernels of each kind that a GPU starts; empty for a TPU.
    """

    cycles: dict[str, float]
    flops: float
    traffic: float
    arguments: int
    temporaries: int
    collectives: dict[str, tuple[int, int]]
    gathers: int
    kernels: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> float:
        """The sum of the cycles."""
        return sum(self.cycles.values())

    def least_seconds(self, chip: Chip, chips: int) -> dict[str, float]:
        """Return the least time by each limit: compute, memory and links."""
        sent = sum(size for _, size in self.collectives.values())
        return {
            "compute": self.total / chip.clock,
            "memory": self.traffic / chip.traffic,
            # A ring sends each byte twice, without the chip's own share.
            "links": 2 * (chips - 1) / chips * sent / chip.link,
        }


def target(name: str) -> Mesh:
    """Return a mesh over chips such as "v5e:2x2", or over one "h100". The chips need not exist.

    Raises:
      ValueError: if the chip is unknown, or its compiler does not know the topology.
      ImportError: without the compiler.
    """
    if name == GPU:
        return _gpu()
    kind, _, topology = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", topology):
        raise ValueError(
            f"--target must be {GPU}, or {' or '.join(CHIPS)} with a topology, such as v5e:2x2; "
            f"got {name!r}"
        )
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            'the compiler for TPUs is missing: pip install -e ".[tpu]", in an environment of its '
            "own, since JAX then looks for TPUs"
        ) from error
    from jax.experimental import topologies

    # Without these, libtpu searches the network for a TPU, and waits.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        described = topologies.get_topology_desc(name, platform="tpu")
    except Exception as error:
        raise ValueError(f"--target {name}: the compiler says {error}") from error
    return meshes.data_mesh(described.devices)


def _gpu() -> Mesh:
    try:
        import jax_plugins.xla_cuda13  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            'the compiler for GPUs is missing: pip install "jax[cuda13]", in an environment of its '
            "own"
        ) from error
    from jax.experimental import topologies

    described = topologies.get_topology_desc(
        GPU, platform="cuda", topology="1x1x1", target_config=_H100
    )
    return meshes.data_mesh(described.devices)


def compiled(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Compile a function for the chips on which its arguments lie, and return its cost.

    The arguments are trees of ``jax.ShapeDtypeStruct`` with shardings on the mesh of a target.
    """
    jitted = function if hasattr(function, "trace") else jax.jit(function)
    (first, *_) = jax.tree.leaves(arguments)
    on_gpu = next(iter(first.sharding.device_set)).platform != "tpu"
    lowered = jitted.trace(*arguments).lower(lowering_platforms=("cuda" if on_gpu else "tpu",))
    # The compiler cannot try kernels to choose among them, because there is no GPU.
    options: dict[str, Any] = {"xla_gpu_autotune_level": 0} if on_gpu else {}
    program = lowered.compile(options)
    memory, counted = program.memory_analysis(), program.cost_analysis() or {}
    assert memory is not None
    text = program.as_text() or ""
    cycles: dict[str, float] = collections.defaultdict(float)
    for estimate, module in _operations(text):
        cycles[part_of(module)] += estimate
    return Cost(
        cycles=dict(cycles),
        flops=counted.get("flops", 0.0),
        traffic=counted.get("bytes accessed", 0.0),
        arguments=memory.argument_size_in_bytes + memory.output_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        collectives=_collectives(text),
        gathers=sum(
            _size(result) >= 1e6 for result in re.findall(r" = (.*?) (?:gather|scatter)\(", text)
        ),
        kernels=_kernels(text) if on_gpu else {},
    )


def part_of(module: str) -> str:
    """Return the part of a network that an operation belongs to, from its name in the program."""
    for part, pattern in _PARTS:
        if re.search(pattern, module):
            return f"{part}, backward" if _BACKWARD.search(module) else part
    return "all else"


def _operations(text: str) -> list[tuple[float, str]]:
    """Return the cycles and the module of each operation with an estimate."""
    operations = []
    for line in text.splitlines():
        estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
        if estimate and float(estimate[1]) < _NO_ESTIMATE:
            module = re.search(r'op_name="([^"]*)"', line)
            operations.append((float(estimate[1]), module[1] if module else ""))
    return operations


def _kernels(text: str) -> dict[str, int]:
    """Count the kernels that a GPU's program starts. The body of a loop counts once."""
    kinds = []
    for line in text.splitlines():
        operation = re.search(r" (fusion|custom-call|copy)\(", line)
        if operation:
            if "__cudnn$conv" in line:
                kinds.append("convolutions")
            elif re.search(r'"__(cublas|triton)\w*(\$|gemm)', line):
                kinds.append("products")
            else:
                others = {"fusion": "fusions", "copy": "copies", "custom-call": "other calls"}
                kinds.append(others[operation[1]])
    return dict(collections.Counter(kinds))


def _collectives(text: str) -> dict[str, tuple[int, int]]:
    """Count the exchanges of each kind, and add up their bytes."""
    counted = {}
    for kind in _COLLECTIVES:
        sizes = [_size(result) for result in re.findall(rf" = (.*?) {kind}(?:-start)?\(", text)]
        if sizes:
            counted[kind] = (len(sizes), sum(sizes))
    return counted


def _size(types: str) -> int:
    """Return the bytes of the arrays of a result, such as ``(f32[64]{0}, bf16[2,3]{1,0})``."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", types)
    return sum(
        _BYTES[kind] * int(np.prod([int(side) for side in shape.split(",") if side]))
        for kind, shape in arrays
        if kind in _BYTES
    )
