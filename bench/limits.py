"""What this machine can do at most: multiply matrices, and read memory. `python -m bench.limits`

Every other figure can be held against these: training is bound by the first, generating by the
second, as each new token reads all weights once.
"""

from __future__ import annotations

import torch

from bench.common import median_seconds, options, record, seconds_of, table

SIZE = 2048  # of the square matrices
MEMORY = 1 << 30  # bytes to read: more than any cache


def matrix_rate(dtype: torch.dtype, device: str = "cpu", size: int = SIZE) -> float:
    """Floating-point operations per second in a product of two square matrices."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)

    def multiply() -> None:
        (a @ b)[0, 0].item()  # a GPU is done only when a number of it is here

    return 2 * size**3 / median_seconds(multiply)


def read_bandwidth(device: str = "cpu") -> float:
    """Bytes per second, at best, in loops that read memory once and write nothing."""
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
