"""Make the demo's landmarks: what the detector reads off scikit-image's astronaut, so that the demo needs no download.

    python scripts/build_demo.py

Needs face_landmarker.task (see `flow3d doctor`). The picture itself comes with scikit-image (public domain, NASA).
"""

from skimage.data import astronaut

from comfyui_flow3d.flow3d.demo import LANDMARKS, save_face
from comfyui_flow3d.flow3d.fit.detect import MediaPipeDetector
from comfyui_flow3d.flow3d.paths import find_weight


def main() -> None:
    with MediaPipeDetector(find_weight("face_landmarker.task")) as detector:
        image = astronaut()
        face = detector.refine(image, detector.detect(image)[0])
    save_face(face, LANDMARKS)
    print(f"{LANDMARKS.name}: {len(face.points)} points, {LANDMARKS.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
