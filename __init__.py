"""Flow3D: portrait animation for ComfyUI, steered by explicit 3D correspondence."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI calls this; importing the package alone imports neither ComfyUI nor torch."""
    from .nodes import Flow3DExtension

    return Flow3DExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
