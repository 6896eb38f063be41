"""Tests the backbone: its weights are read safely, and its layers compute what the architecture says."""

import pickle
import struct
import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.training.backbone import efficientnet_lite

Array = NDArray[np.float64]
LITE0 = efficientnet_lite.VARIANTS["lite0"]


def convolve(image: Array, kernel: Array, stride: int) -> Array:
    """[height, width, in] * [out, in or 1, k, k], padded so that the output has size ceil(input / stride)."""
    size, rows = kernel.shape[2], []
    out = [-(-side // stride) for side in image.shape[:2]]
    pads = [max((count - 1) * stride + size - side, 0) for count, side in zip(out, image.shape[:2], strict=True)]
    padded = np.pad(image, [(pads[0] // 2, pads[0] - pads[0] // 2), (pads[1] // 2, pads[1] - pads[1] // 2), (0, 0)])
    for top in range(0, out[0] * stride, stride):
        for left in range(0, out[1] * stride, stride):
            patch = padded[top : top + size, left : left + size]
            if kernel.shape[1] == 1:
                rows.append(np.einsum("hwc,chw->c", patch, kernel[:, 0]))
            else:
                rows.append(np.einsum("hwi,oihw->o", patch, kernel))
    return np.array(rows).reshape(out[0], out[1], -1)


def normalise(image: Array, weights: dict[str, Any], name: str) -> Array:
    """Batch norm by its definition, not folded into the weights; epsilon is TensorFlow's for this family."""
    centred = (image - weights[f"{name}.running_mean"]) / np.sqrt(weights[f"{name}.running_var"] + 0.001)
    return np.asarray(centred * weights[f"{name}.weight"] + weights[f"{name}.bias"])


class FoldingTest(unittest.TestCase):
    def setUp(self) -> None:
        random = np.random.default_rng(1)
        self.weights = {"c.weight": random.normal(size=(5, 3, 3, 3)), "n.bias": random.normal(size=5)}
        self.weights |= {"n.weight": random.normal(size=5), "n.running_mean": random.normal(size=5)}
        self.weights |= {"n.running_var": random.uniform(0.0, 2.0, 5)}
        self.image = random.normal(size=(7, 6, 3))

    def test_folded_convolution_equals_convolution_then_batch_norm(self) -> None:
        expected = normalise(convolve(self.image, self.weights["c.weight"], 1), self.weights, "n")
        folded = efficientnet_lite.fold(self.weights, "c", "n")
        kernel = folded.kernel.transpose(3, 2, 0, 1).astype(np.float64)
        np.testing.assert_allclose(convolve(self.image, kernel, 1) + folded.bias, expected, atol=1e-5)

    def test_depthwise_kernel_is_told_by_its_shape(self) -> None:
        self.weights["c.weight"] = np.random.default_rng(2).normal(size=(5, 1, 3, 3))
        folded = efficientnet_lite.fold(self.weights, "c", "n")
        self.assertTrue(folded.depthwise)
        self.assertEqual(folded.kernel.shape, (3, 3, 5, 1))
        self.assertEqual(folded.kernel.dtype, np.float32)


class NetworkTest(unittest.TestCase):
    def test_channels_are_rounded_to_multiples_of_eight(self) -> None:
        for channels, width, expected in ((16, 1.1, 16), (24, 1.1, 24), (40, 1.1, 48), (80, 1.1, 88), (320, 1.1, 352)):
            with self.subTest(channels=channels):
                self.assertEqual(efficientnet_lite.round_channels(channels, width), expected)

    def test_number_of_blocks_grows_with_the_variant(self) -> None:
        counts = [len(efficientnet_lite.block_strides(v)) for v in efficientnet_lite.VARIANTS.values()]
        self.assertEqual(counts, [16, 21, 21])

    def test_weights_of_another_variant_are_refused(self) -> None:
        weights = efficientnet_lite.read_weights(efficientnet_lite.installed_weights(LITE0))
        for name in ("lite1", "lite2"):
            with (
                self.subTest(name),
                self.assertRaisesRegex(efficientnet_lite.WeightsError, f"not the weights of {name}"),
            ):
                efficientnet_lite.fold_network(weights, efficientnet_lite.VARIANTS[name])


def legacy_checkpoint(main: bytes, keys: list[str], data: bytes) -> bytes:
    """Return a `.pth` in the layout before PyTorch 1.6, with `main` as its pickle of tensors."""
    parts: list[Any] = [efficientnet_lite.LEGACY_MAGIC, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return head + main + pickle.dumps(keys, protocol=2) + data


def tensor_pickle(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], storage_size: int) -> bytes:
    """Return the pickle of {"t": a float tensor}, written by hand because PyTorch is not installed."""

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("7") + text("cpu") + number(storage_size) + b"NtQ"
    )
    arguments = b"(" + storage + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + b"Nt"
    return b"\x80\x02}" + text("t") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


class ReadWeightsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "weights.pth"
        self.values = np.arange(12, dtype=np.float32)
        self.data = struct.pack("<q", 12) + self.values.tobytes()

    def write(self, main: bytes, data: bytes) -> None:
        self.path.write_bytes(legacy_checkpoint(main, ["7"], data))

    def assert_refused(self, words: str) -> None:
        with self.assertRaisesRegex(efficientnet_lite.WeightsError, words):
            efficientnet_lite.read_weights(self.path)

    def test_tensor_is_read_with_its_strides(self) -> None:
        self.write(tensor_pickle(1, (2, 3), (1, 2), 12), self.data)
        found = efficientnet_lite.read_weights(self.path)["t"]
        np.testing.assert_array_equal(found, [[1, 3, 5], [2, 4, 6]])

    def test_tensor_outside_its_storage_is_refused(self) -> None:
        for offset, strides in ((9, (1, 2)), (-1, (1, 2)), (5, (-4, 1))):
            with self.subTest(offset=offset, strides=strides):
                self.write(tensor_pickle(offset, (2, 3), strides, 12), self.data)
                self.assert_refused("outside its storage")

    def test_file_that_ends_inside_a_tensor_is_refused(self) -> None:
        self.write(tensor_pickle(0, (12,), (1,), 12), self.data[:-4])
        self.assert_refused("ends inside a tensor")

    def test_pickle_that_would_run_a_command_is_refused(self) -> None:
        mark = self.path.with_name("ran")
        command = f"echo > '{mark}'".encode()
        self.write(b"\x80\x02cos\nsystem\n(X" + struct.pack("<I", len(command)) + command + b"tR.", self.data)
        self.assert_refused("os.system is not allowed")
        self.assertFalse(mark.exists())

    def test_file_of_another_kind_is_refused(self) -> None:
        for content in (b"", b"PK\x03\x04 a zip", pickle.dumps(1), b"\xff\xd8\xff\xe0 a jpeg"):
            with self.subTest(content):
                self.path.write_bytes(content)
                self.assert_refused("no legacy PyTorch checkpoint")

    def test_missing_file_is_named(self) -> None:
        self.assert_refused("weights.pth: No such file")


if __name__ == "__main__":
    unittest.main()
