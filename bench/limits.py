"""Measure the limits of this machine: `python -m bench.limits`.

The speed of matrix products limits training and prefill; memory's speed limits decoding, which
reads each weight for one product per text. So other figures are given as shares of these.
"""

from __future__ import annotations

import torch

from bench.common import median_seconds, options, record, seconds_of, table

SIZE = 2048  # rows and columns of the matrices
MEMORY = 1 << 30  # bytes to read: more than any cache


def matrix_rate(dtype: torch.dtype, device: str = "cpu", size: int = SIZE) -> float:
    """Return the floating-point operations per second in a product of two square matrices."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)

    def multiply() -> None:
        """Multiply once, to the end."""
        (a @ b)[0, 0].item()  # wait for the result: a GPU computes asynchronously

    return 2 * size**3 / median_seconds(multiply)


def read_bandwidth(device: str = "cpu") -> float:
    """Return memory's speed in bytes per second: the fastest of loops that only read."""
    x = torch.ones(MEMORY // 4, device=device)
    loops = (
        lambda: x.sum().item(),
        lambda: x.view(-1, 4096).sum(1)[0].item(),
        lambda: x.amax().item(),
        lambda: x.view(torch.int32).amax().item(),
        lambda: torch.dot(x, x).item(),
    )
    return MEMORY / min(seconds_of(loop) for _ in range(4) for loop in loops)


def main() -> None:
    """Measure, print the table, and record the figures."""
    parser = options(__doc__)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    figures = {
        "float32 product, GFLOP/s": matrix_rate(torch.float32, given.device) / 1e9,
        "bfloat16 product, GFLOP/s": matrix_rate(torch.bfloat16, given.device) / 1e9,
        "memory read, GB/s": read_bandwidth(given.device) / 1e9,
    }
    table(("limit", given.device), [(name, f"{value:,.1f}") for name, value in figures.items()])
    record("limits", figures | {"device": given.device}, given)


if __name__ == "__main__":
    main()
