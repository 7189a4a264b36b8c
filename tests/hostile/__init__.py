"""Hostile requests to a ComfyUI server with Flow3D: `corpus.py` has them, `files.py` makes their files, `run.py` sends them.

Run it against any server, from the folder above `tests`:

    python -m tests.hostile.run --server http://127.0.0.1:8188 [--base BASE_DIRECTORY] [--pid SERVER_PROCESS]
"""
