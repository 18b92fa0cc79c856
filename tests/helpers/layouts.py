"""Data sets in their official layouts, filled with drawn faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mien.core.labels import LABELS
from mien.synthetic import draw_face

RAF_NUMBER = {"surprise": 1, "fear": 2, "disgust": 3, "happy": 4, "sad": 5, "angry": 6, "neutral": 7}
AFFECT_NUMBER = {"neutral": 0, "happy": 1, "sad": 2, "surprise": 3, "fear": 4, "disgust": 5, "angry": 6}
FER_NUMBER = {"angry": 0, "disgust": 1, "fear": 2, "happy": 3, "sad": 4, "surprise": 5, "neutral": 6}


def face(number: int, side: int = 48) -> np.ndarray:
    return draw_face(9, 5 * number, side, label=LABELS[number % 7]).image


def on_canvas(
    number: int, side: int = 48, at: tuple[int, int] = (30, 20), shape: tuple[int, int] = (120, 160)
) -> np.ndarray:
    """A face at (x, y) in a larger grey image."""
    out = np.full((*shape, 3), 90, np.uint8)
    out[at[1] : at[1] + side, at[0] : at[0] + side] = face(number, side)
    return out


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def rafdb(root: Path, train: int = 14, test: int = 7, *, aligned: bool = True) -> Path:
    lines = []
    for kind, count, digits in (("train", train, 5), ("test", test, 4)):
        for k in range(count):
            stem, number = f"{kind}_{k + 1:0{digits}}", k + (0 if kind == "train" else 100)
            lines.append(f"{stem}.jpg {RAF_NUMBER[LABELS[number % 7]]}")
            if aligned:
                save(root / "Image" / "aligned" / f"{stem}_aligned.jpg", face(number))
            else:
                save(root / "Image" / "original" / f"{stem}.jpg", on_canvas(number))
            notes = root / "Annotation"
            for folder in ("manual", "boundingbox"):
                (notes / folder).mkdir(parents=True, exist_ok=True)
            points = "\n".join(f"{30 + x}\t{20 + y}" for x, y in ((16, 19), (32, 19), (24, 28), (17, 36), (31, 36)))
            (notes / "manual" / f"{stem}_manu_attri.txt").write_text(f"{points}\n{k % 3}\n{k % 3}\n{k % 5}\n")
            (notes / "boundingbox" / f"{stem}_boundingbox.txt").write_text("30.0 20.0 78.0 68.0 \n")
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    return root


def affectnet_folders(root: Path, train: int = 14, val: int = 7) -> Path:
    for name, count in (("train_set", train), ("val_set", val)):
        notes = root / name / "annotations"
        notes.mkdir(parents=True)
        for k in range(count + 1):
            code = 7 if k == count else AFFECT_NUMBER[LABELS[k % 7]]  # the last one shows contempt
            save(root / name / "images" / f"{k}.jpg", face(k + (0 if name == "train_set" else 200)))
            np.save(notes / f"{k}_exp.npy", np.array(str(code)))
            np.save(notes / f"{k}_val.npy", np.array("-0.25"))
            np.save(notes / f"{k}_aro.npy", np.array("0.5"))
            np.save(notes / f"{k}_lnd.npy", np.zeros(136))
    return root


def affectnet_tables(root: Path, count: int = 8) -> Path:
    lists = root / "Manually_Annotated_file_lists"
    lists.mkdir(parents=True)
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    for name, start in (("training.csv", 0), ("validation.csv", 100)):
        lines = [header]
        for k in range(count):
            save(root / "Manually_Annotated_Images" / "1" / f"{start + k}.jpg", on_canvas(start + k))
            points = np.full((68, 2), 50.0)
            points[36:42], points[42:48] = (46, 39), (62, 41)
            marks = ";".join(f"{v:g}" for v in points.ravel())
            code = AFFECT_NUMBER[LABELS[k % 7]] if k < count - 1 else 9
            lines.append(f"1/{start + k}.jpg,30,20,48,48,{marks},{code},0.1,-0.2")
        (lists / name).write_text("\n".join(lines) + "\n")
    return root


def expw(root: Path, count: int = 14) -> Path:
    lines = []
    for k in range(0, count, 2):  # two faces an image
        image = on_canvas(k, at=(10, 20))
        image[40:88, 100:148] = face(k + 1)
        save(root / "origin" / f"p_{k}.jpg", image)
        lines.append(f"p_{k}.jpg 0 20 10 58 68 93.5 {FER_NUMBER[LABELS[k % 7]]}")
        lines.append(f"p_{k}.jpg 1 40 100 148 88 71 {FER_NUMBER[LABELS[(k + 1) % 7]]}")
    (root / "label.lst").write_text("\n".join(lines) + "\n")
    return root
