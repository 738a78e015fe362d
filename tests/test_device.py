"""The number format of products is the one that this machine multiplies faster."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from minigen.system.device import choose_dtype, cpu_gains_from_bfloat16


@pytest.fixture(autouse=True)
def measured_anew() -> Iterator[None]:
    """Forget the measurement of this process, before and after the test."""
    cpu_gains_from_bfloat16.cache_clear()
    yield
    cpu_gains_from_bfloat16.cache_clear()


@pytest.mark.parametrize("slow", [torch.float32, torch.bfloat16])
def test_a_processor_with_bfloat16_uses_it_where_its_products_take_less_time(
    slow: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Having the instructions is not enough: the format is that of the faster product."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)

    def product(x: Tensor, weight: Tensor) -> Tensor:
        time.sleep(0.01 if x.dtype == slow else 0.0)
        return x

    monkeypatch.setattr(torch.nn.functional, "linear", product)
    faster = "bfloat16" if slow == torch.float32 else "float32"
    assert choose_dtype("auto", torch.device("cpu")) == faster


def test_a_processor_without_bfloat16_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the instructions the format is float32, and no product is computed to find out."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.delattr(torch.nn.functional, "linear")
    assert choose_dtype("auto", torch.device("cpu")) == "float32"


def test_a_measurement_leaves_the_number_of_threads() -> None:
    """One thread computes the products; afterwards PyTorch has the number that it had."""
    torch.set_num_threads(2)
    try:
        cpu_gains_from_bfloat16()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
