"""Tests that TensorProtos are read and written as TensorFlow does."""

import unittest

import numpy as np

from model_service.models import tensors
from serving_common import tensorflow_protos
from unit_test.model_service.fixtures import saved_models

TensorProto = tensorflow_protos.tensor_pb2.TensorProto
DT_FLOAT = tensorflow_protos.types_pb2.DT_FLOAT
NO_LIMIT = 2**40


class ToArrayTest(unittest.TestCase):
    def test_every_tensor_is_read_as_tensorflow_reads_it(self) -> None:
        """Raw content and typed values, too many, too few and none, for each type, compared with TensorFlow."""
        cases = sorted((saved_models() / "tensors").glob("*.pb"))
        self.assertGreater(len(cases), 100)
        for case in cases:
            with self.subTest(case.stem):
                tensor = TensorProto.FromString(case.read_bytes())
                if not case.with_suffix(".npy").exists():
                    with self.assertRaises(ValueError):
                        tensors.to_array(tensor, NO_LIMIT)
                    continue
                wanted = np.load(case.with_suffix(".npy"))
                array = tensors.to_array(tensor, NO_LIMIT)
                np.testing.assert_array_equal(array.astype(wanted.dtype) if wanted.dtype.kind == "S" else array, wanted)
                self.assertEqual(array.dtype, np.dtype(object) if wanted.dtype.kind == "S" else wanted.dtype)

    def test_raw_content_is_viewed_and_not_copied(self) -> None:
        tensor = TensorProto(dtype=DT_FLOAT, tensor_content=np.ones(4, np.float32).tobytes())
        tensor.tensor_shape.dim.add(size=4)
        self.assertFalse(tensors.to_array(tensor, NO_LIMIT).flags.owndata)

    def test_a_scalar_has_no_dimensions(self) -> None:
        self.assertEqual(tensors.to_array(TensorProto(dtype=DT_FLOAT, float_val=[0.5]), NO_LIMIT), np.float32(0.5))

    def test_a_tensor_that_cannot_be_read_is_refused(self) -> None:
        unknown_rank = TensorProto(dtype=DT_FLOAT)
        unknown_rank.tensor_shape.unknown_rank = True
        cases = {
            "no_type": TensorProto(),
            "unsupported_type": TensorProto(dtype=tensorflow_protos.types_pb2.DT_QINT8),
            "unknown_rank": unknown_rank,
        }
        for case, tensor in cases.items():
            with self.subTest(case), self.assertRaises(ValueError):
                tensors.to_array(tensor, NO_LIMIT)

    def test_a_few_bytes_cannot_ask_for_much_memory(self) -> None:
        tensor = TensorProto(dtype=DT_FLOAT, float_val=[1])
        tensor.tensor_shape.dim.add(size=25)
        self.assertEqual(tensors.to_array(tensor, 100).nbytes, 100)
        tensor.tensor_shape.dim[0].size = 26
        with self.assertRaisesRegex(ValueError, "takes more than 100 bytes"):
            tensors.to_array(tensor, 100)


class ToTensorTest(unittest.TestCase):
    def test_what_is_written_is_read_back_unchanged(self) -> None:
        """What TensorFlow reads in a tensor is still the same after a round trip through the typed fields."""
        for case in sorted((saved_models() / "tensors").glob("*.fewer_values.npy")):
            with self.subTest(case.stem):
                number = TensorProto.FromString(case.with_suffix(".pb").read_bytes()).dtype
                array = np.load(case)
                array = array.astype(object) if array.dtype.kind == "S" else array
                tensor = tensors.to_tensor(array, number)
                self.assertEqual(tensor.tensor_content, b"")
                np.testing.assert_array_equal(tensors.to_array(tensor, NO_LIMIT), array)

    def test_floats_go_into_float_val(self) -> None:
        tensor = tensors.to_tensor(np.array([[0.5, 0.25]], np.float32), DT_FLOAT)
        self.assertEqual(list(tensor.float_val), [0.5, 0.25])
        self.assertEqual([dim.size for dim in tensor.tensor_shape.dim], [1, 2])

    def test_numbers_may_be_sent_as_content_and_strings_stay_in_their_field(self) -> None:
        for kind in tensors.KINDS.values():
            with self.subTest(kind.name):
                array = np.array([[1, 0]]).astype(kind.dtype) if not kind.is_string else np.array([[b"a", b""]], object)
                # Columns first: not contiguous.
                tensor = tensors.to_tensor(array.T.copy().T, kind.number, as_content=True)
                self.assertEqual(bool(tensor.tensor_content), not kind.is_string)
                self.assertEqual(bool(getattr(tensor, kind.field)), kind.is_string)
                np.testing.assert_array_equal(tensors.to_array(tensor, NO_LIMIT), array)

    def test_an_array_that_is_not_contiguous_keeps_its_order(self) -> None:
        array = np.arange(6, dtype=np.float32).reshape(2, 3).T
        np.testing.assert_array_equal(tensors.to_array(tensors.to_tensor(array, DT_FLOAT), NO_LIMIT), array)


if __name__ == "__main__":
    unittest.main()
