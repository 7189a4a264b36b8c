"""Files that examples need: their exact names, where they belong, where they are to be had, and under what licence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    file: str
    folder: str  # within ComfyUI's models folder
    page: str
    licence: str
    address: str = ""  # of the file itself, for the page's download button

    @property
    def models(self) -> tuple[dict[str, str], ...]:
        """For a node's `properties`: the page offers to download what is missing."""
        return ({"name": self.file, "url": self.address, "directory": self.folder},) if self.address else ()


def table(*weights: Weight) -> str:
    """The files as words for a note."""
    return "\n\n".join(f"**{w.file}**\nin `models/{w.folder}`\n{w.page} ({w.licence})".replace("\n", "  \n") for w in weights)


_HUB = "https://huggingface.co"
_CONTROLNETS = "comfyanonymous/ControlNet-v1-1_fp16_safetensors"
_WAN = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"


def _hub(repository: str, path: str, folder: str, licence: str) -> Weight:
    file = path.rsplit("/", 1)[-1]
    address = f"{_HUB}/{repository}/resolve/main/{path}"
    return Weight(file, folder, f"[{repository}]({_HUB}/{repository})", licence, address)


LANDMARKER = Weight("face_landmarker.task", "mediapipe", "`flow3d doctor --download` fetches it, 3.8 MB", "Apache-2.0")
SD15 = _hub(
    "Comfy-Org/stable-diffusion-v1-5-archive", "v1-5-pruned-emaonly-fp16.safetensors", "checkpoints", "CreativeML Open RAIL-M"
)
DEPTH = _hub(_CONTROLNETS, "control_v11f1p_sd15_depth_fp16.safetensors", "controlnet", "OpenRAIL")
NORMAL = _hub(_CONTROLNETS, "control_v11p_sd15_normalbae_fp16.safetensors", "controlnet", "OpenRAIL")
FLOW = Weight(
    "flow_controlnet.safetensors", "controlnet",
    "no trained one is published yet; `flow3d init-controlnet` makes an untrained one, which changes nothing", "your own",
)  # fmt: skip
X_PORTRAIT = Weight(
    "model_state-415001.th", "flow3d_appearance",
    "[bytedance/X-Portrait](https://github.com/bytedance/X-Portrait)", "CreativeML Open RAIL-M",
)  # fmt: skip
ANIMATEDIFF = Weight(
    "v3_sd15_mm.ckpt", "animatediff_models", "[guoyww/AnimateDiff](https://github.com/guoyww/AnimateDiff)", "Apache-2.0"
)
WAN_ATI = _hub(
    "Kijai/WanVideo_comfy", "Wan2_1-I2V-ATI-14B_fp8_e4m3fn.safetensors", "diffusion_models", "Apache-2.0"
)
WAN_TEXT = _hub(_WAN, "split_files/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors", "text_encoders", "Apache-2.0")
WAN_VAE = _hub(_WAN, "split_files/vae/wan_2.1_vae.safetensors", "vae", "Apache-2.0")
WAN_VISION = _hub(_WAN, "split_files/clip_vision/clip_vision_h.safetensors", "clip_vision", "Apache-2.0")
