"""What ComfyUI's WanTrackToVideo makes of a text of tracks: `python comfy_wan.py COMFYUI LAUNCHER REQUEST ANSWER`.

A process of its own, because ComfyUI's root has modules of the same names as this repository's. REQUEST is a JSON list of
texts with their videos' width, height and length; ANSWER is a file of arrays, named "0 points", "1 points" and so on.
"""

import importlib.util
import json
import sys
from pathlib import Path

comfyui, launcher, request, answer = map(Path, sys.argv[1:])
sys.argv = sys.argv[:1]
sys.path[0] = str(comfyui)
spec = importlib.util.spec_from_file_location("launcher", launcher)
assert spec and spec.loader
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
declared = launch.import_torchvision()

import comfy.options  # noqa: E402, F401
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import numpy as np  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_wan  # noqa: E402


class Pooling:
    """In place of Wan's VAE, whose weights are not here: the same shapes, from means over its blocks of pixels."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        video = pixels.movedim(-1, 0)[None]  # (1, 3, T, H, W)
        first = torch.nn.functional.avg_pool3d(video[:, :, :1], (1, 8, 8))
        later = torch.nn.functional.avg_pool3d(video[:, :, 1:], (4, 8, 8))
        return torch.cat([first, later], 2).repeat(1, 6, 1, 1, 1)[:, :16]


def made(text: str, width: int, height: int, length: int) -> dict[str, torch.Tensor]:
    """What the node's functions read from the text, and what the node gives to a sampler."""
    points = np.stack([nodes_wan.pad_pts(track) for track in nodes_wan.parse_json_tracks(text)])
    start = torch.linspace(0, 1, width)[None, None, :, None].expand(1, height, width, 3)
    empty = [[torch.zeros(1, 1), {}]]
    node = nodes_wan.WanTrackToVideo.execute(empty, empty, Pooling(), text, width, height, length, 1, 220.0, 2, start)
    positive, _, latent = node.args
    return {
        "points": torch.from_numpy(points),
        "read": nodes_wan.process_tracks(points, (width, height), length - 1),
        "mask": positive[0][1]["concat_mask"],
        "features": positive[0][1]["concat_latent_image"],
        "latent": latent["samples"],
    }


arrays = {}
for i, asked in enumerate(json.loads(request.read_text(encoding="utf-8"))):
    arrays |= {f"{i} {name}": value.numpy() for name, value in made(**asked).items()}
np.savez(answer, **arrays)
