"""Makes small models in every format, with what their authors' own code says of five photos, and imports them.

A program, since the tests hold no TensorFlow: ``python -m unit_test.tools.importing.made_models FOLDER``. It leaves
``FOLDER/models/NAME/1``, the photos, and ``results.json``: of each import the code, what it printed, and the answers
that are expected.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:
    # Windows has none.
    resource = None

import numpy as np
from PIL import Image, ImageOps

import tools.importing.__main__ as importing
from preprocess_service.app.imaging.resize import resize
from tools.importing.frameworks.graph import run_saved_model, tensorflow
from tools.importing.photos import made_photos
from tools.model_folder import read_recipe

warnings.simplefilter("ignore")
tf = tensorflow()
import keras  # noqa: E402  # after TensorFlow
import tf_keras  # noqa: E402

WIDTH, HEIGHT = 48, 40
LABELS = ["ant", "bee", "cow"]
Predict = Callable[[Any], Any]


class Maker:
    """Keeps where things are, and what came of each import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.results: dict[str, dict[str, Any]] = {}
        self.photos = []
        for photo in made_photos():
            path = folder / photo.name
            path.write_bytes(photo.data)
            self.photos.append((path, photo.image))

    def source(self, name: str) -> Path:
        folder = self.folder / "sources" / name
        folder.mkdir(parents=True)
        return folder

    def run(
        self,
        name: str,
        path: Path,
        author: Callable[[Image.Image], Any] | None = None,
        labels: Sequence[str] | None = tuple(LABELS),
        arguments: Sequence[str] = (),
        said: int = 0,
    ) -> None:
        """Import `path` as `name`; `author` returns the probabilities of a photo, `said` of them are told."""
        given = list(arguments)
        if labels is not None:
            file = self.folder / f"{name}.txt"
            file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
            given += ["--labels", str(file)]
        expected = [np.ravel(author(image)).tolist() for _, image in self.photos] if author else []
        names = list(labels or LABELS)
        for (photo, _), answer in list(zip(self.photos, expected, strict=False))[:said]:
            best = int(np.argmax(answer))
            given += ["--photo", str(photo), "--says", f"{names[best]} {100 * answer[best]:.2f}"]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = importing.main([str(path), "--name", name, "--models", str(self.models), *given])
        self.results[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "expected": expected}


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def network(
    package: Any, spread: float, classes: int = 3, channels: int = 3, before: Sequence[Any] = (), **options: Any
) -> Any:
    """A small network of either Keras whose answers tell every pixel and colour apart; inputs are +-`spread`."""
    layers = package.layers
    shape = {"shape" if package is keras else "input_shape": (HEIGHT, WIDTH, channels)}
    model = package.Sequential(
        [
            layers.InputLayer(**options.get("input", shape)),
            *before,
            layers.Conv2D(8, 4, strides=4, activation="tanh", data_format=options.get("data_format", "channels_last")),
            layers.Flatten(),
            layers.Dense(classes, activation=options.get("activation", "softmax")),
        ]
    )
    convolution, dense = model.layers[-3], model.layers[-1]
    kernel = random(4, 4, channels, 8)
    # Most of what a filter sees is what differs between pixels, so that no answer is certain.
    kernel -= 0.9 * kernel.mean(axis=(0, 1, 2))
    convolution.set_weights([kernel / spread, random(8) * 0.1])
    dense.set_weights([random(*dense.weights[0].shape) * 0.05, random(classes, seed=1) * 0.1])
    return model


def fit(image: Image.Image, method: Any = Image.Resampling.LANCZOS) -> Any:
    return np.asarray(ImageOps.fit(image, (WIDTH, HEIGHT), method), np.float32)


def stretch(image: Image.Image, method: Any) -> Any:
    return np.asarray(image.resize((WIDTH, HEIGHT), method), np.float32)


def resized(image: Image.Image) -> Any:
    return tf.image.resize(np.asarray(image), (HEIGHT, WIDTH)).numpy()


def softmax(logits: Any) -> Any:
    powers = np.exp(np.ravel(logits) - np.max(logits))
    return powers / powers.sum()


def sigmoid(logit: Any) -> Any:
    value = float(np.ravel(1 / (1 + np.exp(-logit)))[0])
    return [1 - value, value]


def keras_cases(made: Maker) -> None:
    one = made.source("keras")

    def say(model: Any, prepare: Callable[[Image.Image], Any]) -> Callable[[Image.Image], Any]:
        return lambda image: model(prepare(image)[None], training=False).numpy()

    inside = keras.layers.Rescaling(1 / 127.5, -1)
    model = network(keras, 1, before=[inside])
    model.save(one / "rescaling.keras")
    made.run("rescaling", one / "rescaling.keras", say(model, resized))

    augment = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.2), keras.layers.Rescaling(1 / 255)]
    model = network(keras, 0.5, before=augment)
    # The file then names the optimizer too.
    model.compile(keras.optimizers.Adam(0.003), "categorical_crossentropy")
    model.save(one / "augmentation.keras")
    made.run("augmentation", one / "augmentation.keras", say(model, resized))

    model = network(keras, 1, classes=1, activation="sigmoid")
    model.save(one / "sigmoid.keras")
    nearest = lambda image: stretch(image, Image.Resampling.NEAREST) / 127.5 - 1  # noqa: E731
    two = lambda image: [1 - (value := float(say(model, nearest)(image)[0, 0])), value]  # noqa: E731
    made.run("sigmoid", one / "sigmoid.keras", two, labels=["no", "yes"], said=3)
    # Which class a 1 means is found from the photos too.
    swapped = lambda image: list(reversed(two(image)))  # noqa: E731
    made.run("sigmoid_swapped", one / "sigmoid.keras", swapped, labels=["no", "yes"], said=3)

    logits = network(keras, 0.5, activation=None)
    logits.save(one / "logits.keras")
    bicubic = lambda image: stretch(image, Image.Resampling.BICUBIC) / 255  # noqa: E731
    made.run("logits", one / "logits.keras", lambda image: softmax(say(logits, bicubic)(image)), said=3)

    grey = network(keras, 0.5, channels=1)
    grey.save(one / "grey.keras")
    as_grey = lambda image: tf.image.rgb_to_grayscale(resized(image)).numpy() / 255  # noqa: E731
    made.run("grey", one / "grey.keras", say(grey, as_grey), arguments=["--scale", "0..1"])

    # Pillow's grey is rounded to whole numbers before the resize.
    small = lambda image: stretch(image.convert("L"), Image.Resampling.BILINEAR)[..., None] / 255  # noqa: E731
    made.run("grey_of_pillow", one / "grey.keras", say(grey, small), said=3)

    first = network(keras, 1, input={"shape": (3, HEIGHT, WIDTH)}, data_format="channels_first")
    first.save(one / "channels_first.keras")
    last = network(keras, 1)
    last.layers[0].set_weights(first.layers[0].get_weights())
    # What channels first flattens in another order.
    flat = first.layers[-1].get_weights()[0].reshape(8, HEIGHT // 4, WIDTH // 4, 3).transpose(1, 2, 0, 3).reshape(-1, 3)
    last.layers[-1].set_weights([flat, first.layers[-1].get_weights()[1]])
    signed = lambda image: fit(image) / 127.5 - 1  # noqa: E731
    made.run("channels_first", one / "channels_first.keras", say(last, signed), said=3)

    first.export(made.source("first_export") / "model", verbose=False)
    made.run("channels_first_export", made.folder / "sources" / "first_export" / "model", say(last, signed), said=3)

    fixed = network(keras, 1, input={"batch_shape": (1, HEIGHT, WIDTH, 3)})
    fixed.save(one / "fixed_batch.keras")
    made.run("fixed_batch", one / "fixed_batch.keras", say(fixed, signed), said=3)

    caffe = network(keras, 128)
    caffe.save(one / "bgr.keras")
    means = np.array([103.939, 116.779, 123.68], np.float32)
    made.run("bgr", one / "bgr.keras", say(caffe, lambda image: resized(image)[..., ::-1] - means), said=3)

    imagenet = network(keras, 2)
    imagenet.save(one / "mean_std.keras")
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

    def torchvision(image: Image.Image) -> Any:
        edge = round(WIDTH * 256 / 224)
        short = min(image.size)
        width, height = (edge if side == short else int(edge * side / short) for side in image.size)
        left, top = round((width - WIDTH) / 2), round((height - HEIGHT) / 2)
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(small.crop((left, top, left + WIDTH, top + HEIGHT)), np.float32)
        return (pixels / 255 - mean) / std

    made.run("mean_std", one / "mean_std.keras", say(imagenet, torchvision), said=3)

    padded = lambda image: tf.image.resize_with_pad(np.asarray(image), HEIGHT, WIDTH).numpy() / 255  # noqa: E731
    model = network(keras, 0.5)
    model.save(one / "pad.h5")
    made.run("pad", one / "pad.h5", say(model, padded), said=3)

    cropped = lambda image: keras.utils.img_to_array(  # noqa: E731
        keras.preprocessing.image.smart_resize(np.asarray(image, np.float32), (HEIGHT, WIDTH))
    )
    model = network(keras, 128)
    model.save(one / "no_antialias.keras")
    made.run("no_antialias", one / "no_antialias.keras", say(model, cropped), said=3)

    picture = keras.Input((HEIGHT, WIDTH, 3))
    whole = network(keras, 1)
    model = keras.Model(picture, whole(picture / 127.5 - 1.0))
    model.save(one / "operations.keras")
    bilinear = lambda image: stretch(image, Image.Resampling.BILINEAR)  # noqa: E731
    made.run("operations", one / "operations.keras", say(model, bilinear), said=3)

    features = keras.layers.Conv2D(4, 4, strides=4)(picture)
    heads = {
        "boxes": keras.layers.Dense(8, name="boxes")(keras.layers.Flatten()(features)),
        "classes": network(keras, 128)(picture),
        "score": keras.layers.Dense(1, name="score")(keras.layers.Flatten()(features)),
    }
    model = keras.Model(picture, heads)
    model.save(one / "outputs.keras")
    answer = lambda image: model(resized(image)[None])["classes"].numpy()  # noqa: E731
    made.run("outputs", one / "outputs.keras", answer, arguments=["--scale", "0..255"])
    model.export(made.source("export") / "model", verbose=False)
    made.run("export", made.folder / "sources" / "export" / "model", answer, arguments=["--scale", "0..255"])


def teachable_machine_cases(made: Maker) -> None:
    """Teachable Machine's layout: a Sequential of Sequentials, with batch normalisation, labels "0 name"."""
    layers = tf_keras.layers
    base = tf_keras.Sequential(
        [
            layers.InputLayer((HEIGHT, WIDTH, 3)),
            layers.Conv2D(6, 4, strides=4, name="convolution"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(6.0, name="relu"),
            layers.Flatten(name="flat"),
        ],
        name="base",
    )
    head = tf_keras.Sequential([layers.Dense(20, activation="relu", name="a"), layers.Dense(2, "softmax", name="b")])
    model = tf_keras.Sequential([base, head])
    model.build((None, HEIGHT, WIDTH, 3))
    model.set_weights(
        [
            0.5 + abs(values) if "variance" in weight.name else values
            for weight in model.weights
            for values in [random(*weight.shape, seed=4) * 0.25]
        ]
    )
    author = lambda image: model((fit(image) / 127.5 - 1)[None]).numpy()  # noqa: E731
    # One of Teachable Machine's own, whose recipe is not told but found.
    model.save(made.folder / "sources" / "found.h5")
    said = lambda image: model((stretch(image, Image.Resampling.LANCZOS) / 127.0 - 1)[None]).numpy()  # noqa: E731
    made.run("found", made.folder / "sources" / "found.h5", said, labels=["yes", "no"], said=2)
    folder = made.source("teachable")
    model.save(folder / "keras_model.h5")
    (folder / "labels.txt").write_text("0 Güvercin\n1 Serçe\n", encoding="utf-8")
    with zipfile.ZipFile(folder / "converted_keras.zip", "w") as archive:
        archive.write(folder / "keras_model.h5", "keras_model.h5")
        archive.write(folder / "labels.txt", "labels.txt")
    made.run("teachable_h5", folder / "keras_model.h5", author, labels=None)
    made.run("teachable_zip", folder / "converted_keras.zip", author, labels=None)
    saved = made.source("teachable_savedmodel")
    tf.saved_model.save(model, str(saved / "model.savedmodel"))
    shutil.copy(folder / "labels.txt", saved)
    made.run("teachable_savedmodel", saved, author, labels=None)

    browser = made.source("teachable_tfjs")
    weights = [(weight.name.removesuffix(":0"), weight.numpy()) for weight in model.weights]
    document = {
        "modelTopology": json.loads(model.to_json()),
        "weightsManifest": [
            {
                "paths": ["weights.bin"],
                "weights": [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in weights],
            }
        ],
    }
    (browser / "model.json").write_text(json.dumps(document))
    (browser / "weights.bin").write_bytes(b"".join(value.tobytes() for _, value in weights))
    metadata = {"packageName": "@teachablemachine/image", "labels": ["Güvercin", "Serçe"]}
    (browser / "metadata.json").write_text(json.dumps(metadata))
    made.run("teachable_tfjs", browser / "model.json", author, labels=None)

    lite = made.source("teachable_tflite")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (lite / "model_unquant.tflite").write_bytes(converter.convert())
    shutil.copy(folder / "labels.txt", lite)
    made.run("teachable_tflite", lite / "model_unquant.tflite", author, labels=None)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([(fit(image) / 127.5 - 1)[None]] for _, image in made.photos)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    quantised = made.source("teachable_8bit")
    (quantised / "model.tflite").write_bytes(converter.convert())
    shutil.copy(folder / "labels.txt", quantised)
    made.run("teachable_8bit", quantised / "model.tflite", author, labels=None)


def tensorflow_1_cases(made: Maker) -> None:
    v1 = tf.compat.v1
    folder = made.source("tf1") / "model"
    with tf.Graph().as_default(), v1.Session() as session:
        picture = v1.placeholder(tf.float32, [None, HEIGHT, WIDTH, 3], name="picture")
        training = v1.placeholder(tf.bool, [], name="is_training")
        kernel = v1.get_variable("kernel", initializer=random(4, 4, 3, 8) / 3, use_resource=False)
        dense = v1.get_variable("dense", initializer=random(HEIGHT * WIDTH // 2, 3) * 0.12, use_resource=True)
        hidden = tf.tanh(tf.nn.conv2d(picture, kernel, 4, "SAME"))
        hidden = v1.cond(training, lambda: tf.nn.dropout(hidden, rate=0.5), lambda: hidden)
        logits = tf.reshape(hidden, [-1, HEIGHT * WIDTH // 2]) @ dense
        squeezed = tf.identity(logits[:, None, None, :], name="logits")
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def(
            {"picture": picture, "is_training": training}, {"logits": squeezed}
        )
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()

        def author(image: Image.Image) -> Any:
            values = (fit(image, Image.Resampling.BICUBIC) / 127.5 - 1)[None]
            return softmax(session.run(squeezed, {picture: values, training: False}))

        made.run("tf1", folder, author, said=3)
    cut = made.source("cut_variables") / "model"
    shutil.copytree(folder, cut)
    for data in (cut / "variables").glob("variables.data*"):
        data.write_bytes(data.read_bytes()[:100])
    made.run("cut_variables", cut)
    (folder / "variables" / "variables.index").unlink()
    made.run("no_variables", folder)


def onnx_cases(made: Maker) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    def build(shape: list[Any], channels_first: bool, last: str | None) -> Any:
        weights = {
            "kernel": random(8, 3, 4, 4) / 4,
            "dense": random(HEIGHT * WIDTH // 2, 3 if last != "Sigmoid" else 1) * 0.12,
            "flat": np.array([0 if shape[0] != 1 else 1, -1], np.int64),
        }
        nodes = [] if channels_first else [helper.make_node("Transpose", ["picture"], ["first"], perm=[0, 3, 1, 2])]
        nodes += [
            helper.make_node("Conv", ["picture" if channels_first else "first", "kernel"], ["c"], strides=[4, 4]),
            helper.make_node("Tanh", ["c"], ["t"]),
            helper.make_node("Reshape", ["t", "flat"], ["f"]),
            helper.make_node("MatMul", ["f", "dense"], ["m" if last else "answer"]),
        ]
        nodes += [helper.make_node(last, ["m"], ["answer"])] if last else []
        graph = helper.make_graph(
            nodes,
            "made",
            [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [shape[0], 1 if last == "Sigmoid" else 3])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def answer(model: Any, values: Any) -> Any:
        return ReferenceEvaluator(model).run(None, {"picture": values[None].astype(np.float32)})[0]

    folder = made.source("onnx")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    first = build(["batch", 3, HEIGHT, WIDTH], True, None)
    onnx.save(first, folder / "logits.onnx")
    bicubic = lambda image: stretch(image, Image.Resampling.BICUBIC)  # noqa: E731
    normal = lambda image: ((bicubic(image) / 255 - mean) / std).transpose(2, 0, 1)  # noqa: E731
    made.run("onnx_logits", folder / "logits.onnx", lambda image: softmax(answer(first, normal(image))), said=3)

    last = build(["batch", HEIGHT, WIDTH, 3], False, "Sigmoid")
    onnx.save(last, folder / "sigmoid.onnx")
    author = lambda image: [1 - (value := float(answer(last, fit(image) / 255)[0, 0])), value]  # noqa: E731
    made.run("onnx_sigmoid", folder / "sigmoid.onnx", author, labels=["no", "yes"], said=3)

    alone = build([1, 3, HEIGHT, WIDTH], True, "Softmax")
    onnx.save(alone, folder / "fixed.onnx")
    bgr = lambda image: (bicubic(image)[..., ::-1] / 127.5 - 1).transpose(2, 0, 1)  # noqa: E731
    made.run("onnx_fixed_batch", folder / "fixed.onnx", lambda image: answer(alone, bgr(image)), said=3)

    # What is joined to the photo's features is for one photo, so no batch can be computed.
    joined = build([1, 3, HEIGHT, WIDTH], True, "Softmax")
    nodes, weights = joined.graph.node, joined.graph.initializer
    next(node for node in nodes if node.op_type == "MatMul").input[0] = "joined"
    at = next(number for number, node in enumerate(nodes) if node.op_type == "MatMul")
    nodes.insert(at, helper.make_node("Concat", ["f", "extra"], ["joined"], axis=1))
    weights.append(numpy_helper.from_array(random(1, 5), "extra"))
    dense = next(one for one in weights if one.name == "dense")
    dense.CopyFrom(numpy_helper.from_array(random(HEIGHT * WIDTH // 2 + 5, 3) * 0.12, "dense"))
    onnx.save(joined, folder / "joined.onnx")
    made.run("one_at_a_time", folder / "joined.onnx", lambda image: answer(joined, bgr(image)), said=3)

    hub = made.source("hub")
    onnx.save(first, hub / "model.onnx")
    (hub / "config.json").write_text(json.dumps({"id2label": dict(enumerate(LABELS))}))
    config = {
        "size": {"height": HEIGHT, "width": WIDTH},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean.tolist(),
        "image_std": std.tolist(),
        "image_processor_type": "ViTImageProcessor",
    }
    (hub / "preprocessor_config.json").write_text(json.dumps(config))
    made.run("hugging_face", hub, lambda image: softmax(answer(first, normal(image))), labels=None)


def refused_cases(made: Maker) -> None:
    sources, folder = made.folder / "sources", made.source("refused")
    files = {
        "h5": sources / "teachable" / "keras_model.h5",
        "keras": sources / "keras" / "rescaling.keras",
        "tflite": sources / "teachable_tflite" / "model_unquant.tflite",
        "onnx": sources / "onnx" / "logits.onnx",
        "zip": sources / "teachable" / "converted_keras.zip",
    }
    for name, path in files.items():
        cut = folder / f"truncated{path.suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        made.run(f"truncated_{name}", cut)
    saved = folder / "savedmodel"
    shutil.copytree(sources / "export" / "model", saved)
    graph = (saved / "saved_model.pb").read_bytes()
    (saved / "saved_model.pb").write_bytes(graph[: len(graph) // 2])
    made.run("truncated_savedmodel", saved)
    shutil.copytree(sources / "teachable_tfjs", folder / "tfjs")
    (folder / "tfjs" / "weights.bin").write_bytes(b"1234")
    made.run("truncated_tfjs", folder / "tfjs")

    double = tf_keras.Sequential([tf_keras.Input((HEIGHT, WIDTH, 3)), tf_keras.layers.Lambda(lambda x: x * 2)])
    double.save(folder / "lambda.h5")
    made.run("lambda_h5", folder / "lambda.h5")
    double = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), keras.layers.Lambda(lambda x: x * 2)])
    double.save(folder / "lambda.keras")
    made.run("lambda_keras", folder / "lambda.keras")

    class Mine(keras.layers.Layer):
        pass

    keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), Mine()]).save(folder / "custom.keras")
    made.run("custom_object", folder / "custom.keras")
    network(keras, 1).save_weights(folder / "only.weights.h5")
    made.run("only_weights", folder / "only.weights.h5")
    # A complete file of a version that has one more argument.
    later = folder / "later.keras"
    with zipfile.ZipFile(files["keras"]) as source, zipfile.ZipFile(later, "w") as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry).replace(b'"units": 3', b'"units": 3, "later": 1'))
    made.run("made_by_another_version", later)
    # A description that would have Keras call any function of any module.
    evil = folder / "evil.keras"
    with zipfile.ZipFile(files["keras"]) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.namelist():
            data = source.read(entry)
            if entry == "config.json":
                data = data.replace(
                    b'"activation": "tanh"',
                    b'"activation": {"class_name": "function", "config": "system", "module": "os", '
                    b'"registered_name": "function"}',
                )
            target.writestr(entry, data)
    made.run("function_of_a_module", evil)

    plain = files["keras"]
    made.run("labels_fewer", plain, labels=["a", "b"])
    made.run("labels_more", plain, labels=["a", "b", "c", "d"])
    made.run("labels_repeated", plain, labels=["a", "b", "a"])
    made.run("labels_none", plain, labels=None)
    # The others are as said; the third is what another model might say.
    wrong = ["--photo", str(made.photos[0][0]), "--says", "bee 99.87"]
    made.run("says_what_no_recipe_gives", plain, arguments=wrong)
    made.run("says_another_label", plain, arguments=[*wrong[:3], "dog 50"])
    made.run("name_with_a_path", plain, arguments=["--name", "../x"])
    made.run("no_such_output", sources / "keras" / "outputs.keras", arguments=["--output", "x"])
    two = keras.Input((HEIGHT, WIDTH, 3))
    flat = keras.layers.GlobalAveragePooling2D()(two)
    heads = [keras.layers.Dense(3, activation="softmax", name=name)(flat) for name in ("first", "second")]
    keras.Model(two, heads).save(folder / "two.keras")
    made.run("two_alike", folder / "two.keras")
    independent = network(keras, 128, activation="sigmoid")
    independent.save(folder / "independent.keras")
    made.run("independent", folder / "independent.keras")
    made.run("independent_softmax", folder / "independent.keras", arguments=["--activation", "softmax"])
    mask = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), keras.layers.Conv2D(3, 1, activation="softmax")])
    mask.save(folder / "mask.keras")
    made.run("mask", folder / "mask.keras")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encoded(files: Any) -> Any:
        pictures = tf.map_fn(tf.io.decode_jpeg, files, fn_output_signature=tf.uint8)
        return {"answer": tf.reduce_mean(tf.cast(pictures, tf.float32), [1, 2])}

    module = tf.Module()
    tf.saved_model.save(module, str(folder / "encoded"), signatures=encoded)
    made.run("encoded_files", folder / "encoded")

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
    def writes(picture: Any) -> Any:
        tf.io.write_file(str(folder / "written"), "x")
        return {"answer": tf.reduce_mean(picture, [1, 2])}

    module = tf.Module()
    tf.saved_model.save(module, str(folder / "writes"), signatures=writes)
    made.run("writes_files", folder / "writes")

    # A file system that is full: no file may get longer than this.
    if resource is not None:
        kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        try:
            made.run("disk_full", plain)
            made.run("disk_full_onnx", sources / "hub", labels=None)
            made.run("disk_full_zip", files["zip"], labels=None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, kept)


def ask_tensorflow(folder: Path) -> str:
    """What TensorFlow says where it is asked to compute a version folder: TensorFlow Serving sends it on."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(folder)).signature_def["serving_default"]
        try:
            pixels = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
            session.run(signature.outputs["probabilities"].name, {signature.inputs["image"].name: pixels})
        except tf.errors.OpError as exc:
            return str(exc.message)
    return ""


def main(folder: Path) -> None:
    made = Maker(folder)
    for cases in (keras_cases, teachable_machine_cases, tensorflow_1_cases, onnx_cases, refused_cases):
        cases(made)
    for name, result in made.results.items():
        version = made.models / name / "1"
        if result["code"] == 0 and not (version / "openvino").exists() and "on a CPU" not in result["out"]:
            geometry = read_recipe(version).preprocessor_config.geometry()
            pixels = [resize(image, geometry) for _, image in made.photos]
            result["tensorflow"] = run_saved_model(version, pixels).tolist()
    (folder / "tensorflow_says.txt").write_text(ask_tensorflow(made.models / "onnx_logits" / "1"))
    (folder / "results.json").write_text(json.dumps(made.results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
