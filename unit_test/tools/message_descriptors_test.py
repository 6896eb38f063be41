"""Tests that the messages without TensorFlow equal TensorFlow's own."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADER = f"""
import importlib.util, sys
sys.path[:0] = [{str(ROOT / "tools")!r}, {str(ROOT / "app")!r}]
import message_descriptors
"""


def run_program(text: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a new process, because other tests have already loaded TensorFlow's messages here."""
    return subprocess.run([sys.executable, "-c", HEADER + text], capture_output=True, text=True)


class MessageDescriptorsTest(unittest.TestCase):
    def test_the_descriptions_are_those_of_the_installed_tensorflow(self) -> None:
        done = run_program("""
assert message_descriptors.extract() == message_descriptors.read(), "run: python run.py lock"
print(len(message_descriptors.read().file))
""")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertGreater(int(done.stdout), 30)

    def test_the_origin_that_is_told_is_the_pinned_version(self) -> None:
        readme = (ROOT / "app" / "protos" / "README.md").read_text(encoding="utf-8")
        (pin,) = re.findall(r"^tensorflow==\S+", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)
        self.assertIn(f"`{pin}`", readme)

    def test_stubs_and_messages_work_where_tensorflow_is_not_installed(self) -> None:
        done = run_program("""
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "tensorflow" else find_spec(name)
from serving_common import tensorflow_protos as messages
importlib.util.find_spec = find_spec
# Of TensorFlow itself there is nothing to be found any more.
assert not any(getattr(sys.modules[name], "__file__", None) for name in sys.modules if name.startswith("tensorflow."))
assert sys.modules["tensorflow.core.framework.tensor_pb2"] is messages.tensor_pb2
request = messages.predict_pb2.PredictRequest()
request.model_spec.name = "CAT-DOG"
request.inputs["image"].CopyFrom(
    messages.tensor_pb2.TensorProto(dtype=messages.types_pb2.DT_FLOAT, float_val=[0.5])
)
assert messages.predict_pb2.PredictRequest.FromString(request.SerializeToString()) == request
log = messages.load_prediction_log().PredictionLog()
log.predict_log.request.CopyFrom(request)
assert isinstance(request.inputs["image"], messages.tensor_pb2.TensorProto)
saved = messages.saved_model_pb2.SavedModel(meta_graphs=[messages.meta_graph_pb2.MetaGraphDef()])
assert saved.SerializeToString()
assert messages.model_service_pb2_grpc.ModelServiceStub and messages.prediction_service_pb2_grpc.PredictionServiceStub
try:
    messages.load_tensorflow()
except messages.TensorFlowMissing as exc:
    print(exc)
""")
        self.assertEqual((done.stdout, done.stderr), ("TensorFlow is not installed\n", ""))


if __name__ == "__main__":
    unittest.main()
