"""Runs a script for as long as somebody holds this process's standard input: `python keeper.py FOLDER SCRIPT ARGS...`.

A Ray actor that is killed cannot stop its ComfyUI, which would keep the GPU. Its end of the pipe closes in any case; then this
process, which is the ComfyUI, ends, and FOLDER, where it worked, is removed. Standard library only.
"""

import os
import runpy
import shutil
import sys
import threading


def end_with_stdin(folder: str) -> None:
    while os.read(0, 1024):  # not sys.stdin, which the script may use
        pass
    os.chdir(os.path.dirname(folder))
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> None:
    folder, script = sys.argv[1:3]
    threading.Thread(target=end_with_stdin, args=(folder,), daemon=True).start()
    sys.argv = sys.argv[2:]
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
