"""3D Flow Encode: where each pixel of the target came from on the source, as a lazy field."""
