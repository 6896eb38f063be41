"""The independent implementation for check_conversion.py: logits of the PyPI package efficientnet-lite-pytorch.

It runs in an environment of its own with `torch` and `efficientnet-lite-pytorch`, and shares no code with this project.
"""

import argparse
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found]  # lives in an environment of its own
from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]  # likewise


def main() -> None:
    """Read float32 inputs [n, height, width, 3]; write logits [n, 1000] and pooled features [n, features]."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("variant", help="lite0, lite1 or lite2")
    parser.add_argument("weights", type=Path, help="the .pth file")
    parser.add_argument("inputs", type=Path, help="float32 [n, height, width, 3] as .npy")
    parser.add_argument("outputs", type=Path, help="file for logits and features, .npz")
    options = parser.parse_args()
    inputs = torch.from_numpy(np.load(options.inputs)).permute(0, 3, 1, 2)
    # The package computes its padding once, from the configured size and not from the input.
    network = EfficientNet.from_pretrained(
        f"efficientnet-{options.variant}", weights_path=str(options.weights), image_size=tuple(inputs.shape[2:])
    ).eval()
    with torch.no_grad():
        features = [network.extract_features(batch).mean((2, 3)) for batch in inputs.split(16)]
        logits = [network(batch) for batch in inputs.split(16)]
    np.savez(options.outputs, logits=torch.cat(logits).numpy(), features=torch.cat(features).numpy())


if __name__ == "__main__":
    main()
