"""Tests a running pair as a user sees it. Start one with ``python run.py serve``, or set TEST_URL."""

import base64
import unittest

import requests

from unit_test.utils import IMAGES, URL, image_to_base64, predict, predict_image


class LocalhostTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        try:
            requests.get(f"{URL}/livez", timeout=5)
        except requests.ConnectionError:
            raise unittest.SkipTest(f"NOTHING LISTENS AT {URL}. Start the pair: python run.py serve") from None

    def check_success(self, image: str, pet_type: str) -> None:
        answer = predict_image(image)
        self.assertEqual(answer["status"], "Success", answer)
        self.assertEqual(answer["pet_type"], pet_type)
        self.assertGreater(answer["model_conf"], 50)

    def check_refusal(self, body: object, status: int, code: str) -> str:
        response = predict(body)
        answer = response.json()
        self.assertEqual((response.status_code, answer["status"], answer["code"]), (status, "Failed", code), answer)
        return str(answer["msg"])

    def test_cat_1_is_a_cat(self) -> None:
        self.check_success("cat_1.jpg", "CAT")

    def test_cat_2_upside_down_is_a_cat(self) -> None:
        self.check_success("cat_2.jpg", "CAT")

    def test_dog_1_is_a_dog(self) -> None:
        self.check_success("dog_1.jpg", "DOG")

    def test_dog_2_is_a_dog(self) -> None:
        self.check_success("dog_2.jpg", "DOG")

    def test_the_tutorials_own_path_gives_the_same_answer(self) -> None:
        new, old = predict_image("cat_1.jpg"), predict_image("cat_1.jpg", f"{URL}/cat-dog_classification")
        self.assertEqual(
            {key: value for key, value in new.items() if key != "request_id"},
            {key: value for key, value in old.items() if key != "request_id"},
        )

    def test_confidence_is_the_probability_of_the_answer_in_percent(self) -> None:
        answer = predict_image("dog_1.jpg")
        probabilities = answer["probabilities"]
        self.assertAlmostEqual(sum(probabilities.values()), 1, places=3)
        self.assertEqual(answer["pet_type"], max(probabilities, key=probabilities.get))
        self.assertAlmostEqual(answer["model_conf"], 100 * probabilities[answer["pet_type"]], delta=0.0051)

    def test_text_that_is_not_base64_is_refused_in_the_tutorials_words(self) -> None:
        message = self.check_refusal({"image_b64": "this is not base64!"}, 400, "invalid_base64")
        self.assertTrue(message.startswith("Image base64 invalid"), message)

    def test_base64_of_a_text_is_refused_as_an_image(self) -> None:
        text = base64.b64encode(b"meow, said the dog").decode()
        self.check_refusal({"image_b64": text}, 400, "invalid_image")

    def test_a_truncated_photo_is_refused(self) -> None:
        encoded = image_to_base64(IMAGES / "cat_1.jpg")
        self.check_refusal({"image_b64": encoded[: len(encoded) // 8 * 4]}, 400, "invalid_image")

    def test_a_missing_field_is_named(self) -> None:
        self.assertIn("image_b64", self.check_refusal({}, 422, "invalid_request"))

    def test_the_pair_is_ready(self) -> None:
        response = requests.get(f"{URL}/readyz", timeout=10)
        self.assertEqual((response.status_code, response.json()["failing"]), (200, {}))


if __name__ == "__main__":
    unittest.main()
