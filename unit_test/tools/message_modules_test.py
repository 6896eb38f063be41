"""The message modules of an environment without TensorFlow are TensorFlow's own."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADER = f"""
import importlib.util, pathlib, site, sys, types
sys.path.insert(0, {str(ROOT / "tools")!r})
import message_modules
"""


def run_program(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own: other tests have loaded TensorFlow's messages already."""
    return subprocess.run([sys.executable, "-c", HEADER + text, *arguments], capture_output=True, text=True)


class MessageModulesTest(unittest.TestCase):
    def test_the_descriptions_are_those_of_the_installed_tensorflow(self) -> None:
        done = run_program("""
assert message_modules.extract() == message_modules.read(), "run: python run.py lock"
print(len(message_modules.read().file))
""")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertGreater(int(done.stdout), 30)

    def test_the_origin_that_is_told_is_the_pinned_version(self) -> None:
        pins = (ROOT / "app" / "requirements-messages.txt").read_text(encoding="utf-8").split()
        readme = (ROOT / "app" / "protos" / "README.md").read_text(encoding="utf-8")
        (pin,) = [word for word in pins if word.startswith("tensorflow==")]
        self.assertIn(f"`{pin}`", readme)
        served = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8").split()
        self.assertLessEqual(
            {word for word in served if word.startswith("tensorflow")}, {*pins, "tensorflow-serving-api"}
        )

    def test_both_services_stubs_and_messages_work_with_the_modules_alone(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            done = run_program(
                """
folder = pathlib.Path(sys.argv[1])
message_modules.install(folder)
before = list(sys.path)
site.addsitedir(str(folder))
# After all others, so that an installed TensorFlow goes before it.
assert sys.path[-1] == str(folder / "tensorflow_protos"), sys.path
# As if TensorFlow were not installed.
sys.modules["tensorflow"] = types.ModuleType("tensorflow")
sys.modules["tensorflow"].__path__ = [str(folder / "tensorflow_protos" / "tensorflow")]
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc
assert tensor_pb2.__file__.startswith(str(folder))
request = predict_pb2.PredictRequest()
request.model_spec.name = "CAT-DOG"
request.inputs["image"].CopyFrom(tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[0.5]))
assert predict_pb2.PredictRequest.FromString(request.SerializeToString()) == request
log = prediction_log_pb2.PredictionLog()
log.predict_log.request.CopyFrom(request)
assert isinstance(request.inputs["image"], tensor_pb2.TensorProto)
saved = saved_model_pb2.SavedModel(meta_graphs=[meta_graph_pb2.MetaGraphDef()])
assert saved.SerializeToString()
print("done", sorted(name for name in sys.modules if name.startswith("tensorflow.python")))
""",
                folder,
            )
        self.assertEqual((done.stdout, done.stderr), ("done []\n", ""))


if __name__ == "__main__":
    unittest.main()
