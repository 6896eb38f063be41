"""Trains a small Keras model on folders of photos, one folder per label, and saves it with what an import needs.

python course/shapes/train_keras.py shapes
"""

import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

folder, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
keras.utils.set_random_seed(seed)


def prepare(path: Path) -> np.ndarray:
    """Return the photo as the model wants it: 64 x 64 pixels, numbers from 0 to 1."""
    return np.asarray(Image.open(path).convert("RGB").resize((64, 64)), np.float32) / 255


labels = sorted(path.name for path in folder.iterdir() if path.is_dir())
paths = sorted(folder.glob("*/*.jpg"))
photos = np.stack([prepare(path) for path in paths])
classes = np.array([labels.index(path.parent.name) for path in paths])

model = keras.Sequential(
    [
        keras.Input((64, 64, 3), name="image"),
        keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(len(labels), activation="softmax"),
    ]
)
model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(photos, classes, epochs=12, verbose=2)

model.save("shapes.keras")
Path("labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")

# The answers for three photos: those of which the model is least sure, because they tell most.
answers = model.predict(photos, verbose=0)
lines = []
for row in answers.max(axis=1).argsort()[:3]:
    best = answers[row].argmax()
    lines.append(f"{paths[row].as_posix()}: {labels[best]} {100 * answers[row][best]:.2f}\n")
Path("answers.txt").write_text("".join(lines), encoding="utf-8")
print("".join(lines), end="")
