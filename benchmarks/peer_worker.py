"""One recogniser in an environment of its own, for peers.py: faces in, probabilities and times out.

    python peer_worker.py NAME FACES.npz OUT.npz FILE

FACES.npz holds `faces` (n, 48, 48) uint8, grey. Each line `START END` on standard input has these faces recognised, one
by one and on one thread, and is answered by a line. At the end of input OUT.npz is written: `probabilities` (n, 7) in
mien's order of classes, `times` (n,) in seconds, `bytes` of the weights, `version` of the package. FILE is the model of
ours, or the path of fer's converted network. The script needs numpy and what it measures. Packages run with their own
preprocessing; a whole face crop is the face's box.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
os.environ.update(dict.fromkeys(THREADS, "1"))
os.environ.update(CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="3")

import numpy as np  # noqa: E402

CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
Made = tuple[Callable[[Any], Any], Path, str]
"""What recognises a face (48, 48) as seven numbers, the file of its weights, its package."""
TO_OURS = [FER2013.index(name) for name in CLASSES]


def fer(file: Path, **settings: Any) -> Made:
    """The package as it is, its rounded answer replaced by what its network says."""
    import cv2
    import fer.fer
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    detector = fer.fer.FER(**settings)
    inner, said = detector._classify_emotions, []

    def classify(faces: Any) -> Any:
        said[:] = [np.asarray(inner(faces))]
        return said[0]

    detector._classify_emotions = classify

    def recognise(face: Any) -> Any:
        detector.detect_emotions(cv2.cvtColor(face, cv2.COLOR_GRAY2BGR), [(0, 0, *face.shape[::-1])])
        return said[0][0][TO_OURS]

    name = "emotion_model_quantized.tflite" if settings.get("use_tflite", True) else "emotion_model.hdf5"
    return recognise, Path(fer.__file__).parent / "data" / name, "fer"


def fer_onnx(file: Path) -> Made:
    """fer's bare network, converted by tf2onnx, in onnxruntime: the face resized and scaled, nothing around it."""
    import cv2
    import onnxruntime

    if not file.is_file():
        _convert_fer(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def recognise(face: Any) -> Any:
        values = (cv2.resize(face, (64, 64)).astype(np.float32) / 255 - 0.5) * 2
        return session.run(None, {name: values[None, :, :, None]})[0][0][TO_OURS]

    return recognise, file, "fer"


def _convert_fer(file: Path) -> None:
    import fer
    import tensorflow
    import tf2onnx

    model = tensorflow.keras.models.load_model(Path(fer.__file__).parent / "data" / "emotion_model.hdf5", compile=False)
    call = tensorflow.function(lambda faces: model(faces, training=False))
    spec = [tensorflow.TensorSpec((None, 64, 64, 1), tensorflow.float32, name="faces")]
    tf2onnx.convert.from_function(call, input_signature=spec, opset=17, output_path=str(file))


def facial(file: Path) -> Made:
    """facial-emotion-recognition: it gives only a label, the largest of seven sigmoids; here they are normalised."""
    import torch

    torch.set_num_threads(1)
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # a CPU build of torch: declare what torchvision's Python part asks for, and import again
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    # Its weights were saved on a GPU, and it does not say that they are for a processor.
    torch.load = functools.partial(torch.load, map_location="cpu")
    # Its face detector, which a face crop does not need, comes from a package that asks for an old torch.
    sys.modules["facenet_pytorch"] = types.SimpleNamespace(MTCNN=lambda **settings: None)
    import facial_emotion_recognition

    recogniser = facial_emotion_recognition.EmotionRecognition(device="cpu")

    def recognise(face: Any) -> Any:
        with torch.no_grad():
            found = torch.exp(recogniser.network(recogniser.transform(face).unsqueeze(0)))[0].numpy()
        return (found / found.sum())[TO_OURS]

    folder = Path(facial_emotion_recognition.__file__).parent
    return recognise, folder / "model" / "model.pkl", "facial-emotion-recognition"


def mien(file: Path) -> Made:
    """A model file of ours, a face at a time as a caller of the package gives it."""
    from mien import Recognizer

    recogniser = Recognizer.load(file)
    return lambda face: list(recogniser.classify(face).values()), file, "mien"


MAKERS: dict[str, Callable[[Path], Made]] = {
    "fer": fer,
    "fer_tight": lambda file: fer(file, offsets=(0, 0)),
    "fer_keras": lambda file: fer(file, use_tflite=False),
    "fer_onnx": fer_onnx,
    "facial": facial,
    "mien": mien,
}


def main() -> None:
    """Recognise what is asked for, line by line."""
    name, source, out, file = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # packages print
    faces = np.load(source)["faces"]
    recognise, weights, package = MAKERS[name](Path(file))
    probabilities, times = np.full((len(faces), len(CLASSES)), np.nan), np.full(len(faces), np.nan)
    for face in faces[:20]:
        recognise(face)  # warm-up
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        for i in range(*map(int, line.split())):
            start = time.perf_counter()
            found = recognise(faces[i])
            times[i] = time.perf_counter() - start
            probabilities[i] = found
        print("done", file=answers, flush=True)
    version = importlib.metadata.version(package)
    np.savez(out, probabilities=probabilities, times=times, bytes=weights.stat().st_size, version=version)


if __name__ == "__main__":
    main()
