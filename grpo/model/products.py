"""Products of matrices in half precision whose result is not rounded to it.

A GPU adds up a product of bf16 matrices in fp32 in any case, and torch (2.8 and later, CUDA) hands that out when asked
to; a CPU rounds it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def keeps_fp32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether matrices of this type have products in fp32 on this device."""
    return dtype is not torch.float32 and has_wide_products(device.type, dtype)


@cache
def has_wide_products(kind: str, dtype: torch.dtype) -> bool:
    """Tried once: there is no other way to ask."""
    one = torch.ones(16, 16, device=kind, dtype=dtype)
    try:
        return torch.mm(one, one, out_dtype=torch.float32).dtype is torch.float32
    except (RuntimeError, TypeError):
        return False


@cache
def adds_wide_products(kind: str, dtype: torch.dtype) -> bool:
    """Whether a product can be added to what is there, in fp32, without being written out by itself first."""
    total, one = torch.ones(16, 16, device=kind), torch.ones(16, 16, device=kind, dtype=dtype)
    try:
        torch.addmm(total, one, one, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 17).all())


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right: in fp32 where `keeps_fp32`, else in their own type."""
    if keeps_fp32(left.device, left.dtype):
        return torch.mm(left, right, out_dtype=torch.float32)
    return left @ right


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, where `total` is in fp32."""
    if keeps_fp32(left.device, left.dtype) and adds_wide_products(left.device.type, left.dtype):
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += product(left, right)
