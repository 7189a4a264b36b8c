"""Many items through ComfyUI servers: the `flow3d batch` command. Imports flow3d, never comfy."""
