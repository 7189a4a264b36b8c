"""The model folders that Flow3D adds to ComfyUI's."""

from pathlib import Path

import folder_paths

FLAME, MEDIAPIPE, APPEARANCE = "flame", "mediapipe", "flow3d_appearance"
MOTION, MOTION_LORA = "animatediff_models", "animatediff_motion_lora"  # the names that AnimateDiff-Evolved uses
_WEIGHTS = {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".th"}
_SUFFIXES = {
    FLAME: {".safetensors", ".npz", ".pkl"},
    MEDIAPIPE: {".task"},
    APPEARANCE: _WEIGHTS,
    MOTION: _WEIGHTS,
    MOTION_LORA: _WEIGHTS,
}


def register_folders() -> None:
    """Make `models/flame` and the others known, with the suffixes of their files."""
    for name, suffixes in _SUFFIXES.items():
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        paths, known = folder_paths.folder_names_and_paths[name]
        # An empty set, which a folder from extra_model_paths.yaml starts with, would list every file.
        folder_paths.folder_names_and_paths[name] = (paths, set(known) | suffixes)


def model_folders(name: str) -> list[Path]:
    return [Path(p) for p in folder_paths.get_folder_paths(name)]
