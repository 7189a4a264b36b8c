"""Start ComfyUI: `python launch_comfyui.py COMFYUI_FOLDER [ARGS for main.py]`.

It does what `python main.py ARGS` does, and makes one repair first. torchvision comes from the package index in a CUDA
build only; beside a CPU build of torch its compiled operators do not load and its import fails with `operator
torchvision::nms does not exist`. ComfyUI needs the import, not the operators, so their schemas are defined here.
"""

import importlib
import runpy
import sys
from pathlib import Path

_BOX = "float spatial_scale, int pooled_height, int pooled_width"
_GRAD_BOX = f"{_BOX}, int batch_size, int channels, int height, int width"
_DEFORM = (
    "int stride_h, int stride_w, int pad_h, int pad_w, int dil_h, int dil_w, int groups, int offset_groups, bool use_mask"
)
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align(Tensor input, Tensor rois, {_BOX}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_GRAD_BOX}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool(Tensor input, Tensor rois, {_BOX}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_GRAD_BOX}) -> Tensor",
    f"ps_roi_align(Tensor input, Tensor rois, {_BOX}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor mapping, {_GRAD_BOX}, int sampling_ratio) -> Tensor",
    f"ps_roi_pool(Tensor input, Tensor rois, {_BOX}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor mapping, {_GRAD_BOX}) -> Tensor",
    f"deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_DEFORM}) -> Tensor",
    "_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    f"{_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def import_torchvision() -> object | None:
    """Import torchvision; where its operators are missing, declare them and import it again.

    Returns the library that holds the declarations (keep it alive), or None where nothing was needed.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except ModuleNotFoundError:
        return None  # ComfyUI says itself what it misses
    except RuntimeError:
        pass
    import torch

    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    importlib.import_module("torchvision")
    return library


def main() -> None:
    folder = Path(sys.argv[1])
    sys.path[0] = str(folder)
    sys.argv = [str(folder / "main.py"), *sys.argv[2:]]
    declared = import_torchvision()  # noqa: F841 - alive as long as ComfyUI runs
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
