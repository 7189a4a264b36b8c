"""A custom node that puts anything on any wire, as other packs' nodes with wildcard outputs do.

ComfyUI loads a copy of this file from `custom_nodes`; it knows nothing of Flow3D.
"""

import json
from typing import Any

import numpy as np
import torch


class Anything(str):
    """A socket type that fits all others."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def _model() -> Any:
    """A small network of Stable Diffusion 1.5's kind with random weights."""
    import comfy.model_patcher
    import comfy.supported_models

    config = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 16, "num_heads": 8,
        "num_head_channels": -1, "use_spatial_transformer": True, "use_linear_in_transformer": False, "legacy": False,
        "use_checkpoint": False, "adm_in_channels": None, "use_temporal_attention": False, "use_temporal_resblock": False,
    }  # fmt: skip
    described = comfy.supported_models.SD15(config)
    described.unet_config |= {"num_heads": 8}
    described.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(described.get_model({}, "").eval(), load_device=cpu, offload_device=cpu)


class _Hollow:
    """Something that answers no question but what it is called (ComfyUI's queue ends where that fails)."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("there is nothing here")

    def __len__(self) -> int:
        raise RuntimeError("there is nothing here")

    def __repr__(self) -> str:
        return "hollow"


def _loop() -> list:
    loop: list = []
    loop.append(loop)
    return loop


MADE = {
    "model": _model,
    "conditioning": lambda: [[torch.zeros(1, 77, 16), {}]],
    "empty list": list,
    "empty dictionary": dict,
    "dictionary": lambda: {"samples": "text"},
    "nothing": lambda: None,
    "hollow": _Hollow,
    "loop": _loop,
    "bytes": lambda: b"\xff" * 100,
    "class": lambda: dict,
    "function": lambda: print,
    "big number": lambda: 10**400,
    "complex number": lambda: 1j,
    "numpy number": lambda: np.float64("nan"),
    "tensor number": lambda: torch.tensor(float("nan")),
    "numbers": lambda: [0.0, 1.0, 2.0],
    "numbers with nan": lambda: [0.0, float("nan")],
    "numbers with infinity": lambda: [float("inf")],
    "numbers without end": lambda: np.zeros(10_000_000),
    "uneven numbers": lambda: [[1, 2], [3]],
    "texts": lambda: ["a", "b"],
    "pictures": lambda: torch.zeros(1, 64, 64, 3),
    "pictures of 512": lambda: torch.zeros(1, 512, 512, 3),
    "pictures without frames": lambda: torch.zeros(0, 512, 512, 3),
    "pictures without height": lambda: torch.zeros(1, 0, 512, 3),
    "pictures without channels": lambda: torch.zeros(1, 512, 512, 0),
    "pictures of two channels": lambda: torch.zeros(1, 512, 512, 2),
    "pictures of five channels": lambda: torch.zeros(1, 512, 512, 5),
    "pictures without batch": lambda: torch.zeros(512, 512, 3),
    "pictures in five axes": lambda: torch.zeros(1, 1, 512, 512, 3),
    "pictures of nan": lambda: torch.full((1, 512, 512, 3), torch.nan),
    "pictures of infinity": lambda: torch.full((1, 512, 512, 3), torch.inf),
    "pictures of bytes": lambda: torch.zeros(1, 512, 512, 3, dtype=torch.uint8),
    "pictures of truths": lambda: torch.zeros(1, 512, 512, 3, dtype=torch.bool),
    "complex pictures": lambda: torch.zeros(1, 512, 512, 3, dtype=torch.complex64),
    "endless pictures": lambda: torch.zeros(1, 1, 1, 1).expand(1_000_000, 512, 512, 3),
    "numpy pictures": lambda: np.zeros((1, 512, 512, 3), np.float32),
    "number tensor": lambda: torch.tensor(1.0),
    "sparse tensor": lambda: torch.zeros(1, 512, 512, 3).to_sparse(),
    "latent": lambda: {"samples": torch.zeros(2, 4, 8, 8)},
    "latent without samples": lambda: {"noise_mask": None},
    "latent of text": lambda: {"samples": "text"},
    "latent in three axes": lambda: {"samples": torch.zeros(4, 8, 8)},
    "latent without frames": lambda: {"samples": torch.zeros(0, 4, 8, 8)},
    "latent of nan": lambda: {"samples": torch.full((1, 4, 8, 8), torch.nan)},
    "latent of 16 channels": lambda: {"samples": torch.zeros(1, 16, 8, 8)},
    "conditioning of text": lambda: [["text", {}]],
    "conditioning without options": lambda: [[torch.zeros(1, 77, 16)]],
    "conditioning of numbers": lambda: [1, 2],
    "conditioning of 768": lambda: [[torch.zeros(1, 77, 768), {}]],
    "conditioning in two axes": lambda: [[torch.zeros(77, 16), {}]],
    "landmarks without frames": lambda: {"frames": [], "image_size": (64, 64)},
    "landmarks of text": lambda: {"frames": [[{"landmarks_xy": "text"}]], "image_size": (64, 64)},
    "landmarks of nan": lambda: {
        "frames": [[{"landmarks_xy": np.full((478, 2), np.nan), "landmarks_3d": np.zeros((478, 3))}]]
    },
}


class HostileWire:
    RETURN_TYPES, FUNCTION, CATEGORY = (Anything("*"),), "made", "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"kind": ("STRING", {}), "json": ("STRING", {"default": "null"})}}

    def made(self, kind: str, json: str) -> tuple[Any]:
        return (_json(json) if kind == "json" else MADE[kind](),)


class HostileList(HostileWire):
    """The same, as an output of a list: the node behind it runs once for each value, and not at all for none."""

    OUTPUT_IS_LIST = (True,)


def _json(text: str) -> Any:
    return json.loads(text)


NODE_CLASS_MAPPINGS = {"HostileWire": HostileWire, "HostileList": HostileList}
