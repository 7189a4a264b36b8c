"""The CUDA path: what can be shown without a GPU, and, where there is one, that it equals the CPU and never waits."""

import sys
from pathlib import Path

import pytest
import torch
import warp as wp
from test_flow_definition import SAME, TOY, pairs
from torch._subclasses.fake_tensor import FakeTensorMode

from comfyui_flow3d.flow3d.flow import candidates, carry, surface_field, turns
from comfyui_flow3d.flow3d.flow.encode import encode_pairs
from comfyui_flow3d.flow3d.flow.sampling import Sampling
from comfyui_flow3d.flow3d.flow.topology import topology_of
from comfyui_flow3d.flow3d.flow.turns import whole
from comfyui_flow3d.flow3d.render import rasterize

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.skipif(sys.platform == "darwin" or not hasattr(wp, "compile_aot_module"), reason="this warp has no CUDA compiler")
@pytest.mark.parametrize("arch", [75, 86, 90])
@pytest.mark.parametrize(
    "kernel",
    [rasterize._draw, turns._fit_turns, carry._carriers, candidates._list_candidates, surface_field._write_flow],
    ids=lambda k: k.key,
)
def test_the_kernels_compile_for_cuda_without_a_gpu(kernel: wp.Kernel, arch: int, tmp_path: Path):
    """Turing, Ampere and Hopper, by the compiler that comes with warp."""
    wp.compile_aot_module(kernel.module, arch=arch, module_dir=tmp_path, use_ptx=True)
    code = next(tmp_path.glob("*.ptx")).read_text(encoding="utf-8")
    assert f".target sm_{arch}" in code and kernel.key.strip("_") in code


def test_nothing_in_the_preparation_depends_on_values():
    """What needs a value on the host, such as `item` or a choice by mask, makes it wait for the device: these raise here."""
    p = pairs(TOY, 2, 16, 16)
    topology = topology_of(TOY)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        target, source = mode.from_tensor(p.target), mode.from_tensor(p.source)
        fit = whole(target.double(), source.double())
        low, high = topology.boxes(target, target[:, topology.faces].isfinite().all(-1).all(-1))
        assert fit.shape == (2, 3, 3) and low.shape == high.shape
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            fit.sum().item()


def test_the_launches_of_cuda_give_the_same_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    """Many threads a row and more rows at a time: every pixel bit for bit."""
    p, sampling = pairs(TOY, 2, 75, 130), Sampling(7)
    expected = encode_pairs(topology_of(TOY), p.source, p.target, p.cameras, sampling)
    monkeypatch.setitem(surface_field.LANES, "cpu", surface_field.LANES["cuda"])
    monkeypatch.setattr(surface_field.SurfaceField, "_rows_at_a_time", lambda *_: 2 * candidates.BAND)
    assert torch.equal(encode_pairs(topology_of(TOY), p.source, p.target, p.cameras, sampling), expected)
    monkeypatch.setattr(surface_field.SurfaceField, "_rows_at_a_time", lambda *_: 10 * candidates.BAND)
    assert torch.equal(encode_pairs(topology_of(TOY), p.source, p.target, p.cameras, sampling), expected)


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_window_on_cuda_equals_the_cpu_and_nothing_waits(dtype: torch.dtype):
    p, sampling, cuda = pairs(TOY, 3, 70, 61), Sampling(), torch.device("cuda")
    here = torch.empty(3, 60, 61, 70, dtype=dtype)
    encode_pairs(topology_of(TOY), p.source, p.target, p.cameras, sampling, 1.0, out=here)
    topology, source, target = topology_of(TOY).to(cuda), p.source.to(cuda), p.target.to(cuda)
    there = torch.empty(3, 60, 61, 70, dtype=dtype, device=cuda)
    encode_pairs(topology, source, target, p.cameras, sampling, 1.0, out=there)  # compiles
    there.zero_()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        encode_pairs(topology, source, target, p.cameras, sampling, 1.0, out=there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    apart = (there.cpu().float() - here.float()).abs()
    assert (apart > (SAME if dtype == torch.float32 else 1e-3)).float().mean() < 1e-3  # ties


@needs_cuda
def test_a_stream_of_ones_own():
    p, cuda = pairs(TOY, 1, 64, 64), torch.device("cuda")
    topology, source, target = topology_of(TOY).to(cuda), p.source.to(cuda), p.target.to(cuda)
    expected = encode_pairs(topology, source, target, p.cameras, Sampling())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = encode_pairs(topology, source, target, p.cameras, Sampling())
    stream.synchronize()
    assert torch.equal(got, expected)
