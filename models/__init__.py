"""Networks: reading and writing their weights, and what of them runs inside ComfyUI."""
