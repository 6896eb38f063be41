"""Tests the service that runs on this computer. Start it first: python course/app_server.py"""

import unittest

from utils import IMAGES, image_to_base64, predict


class LocalhostTest(unittest.TestCase):
    def check(self, photo: str, pet_type: str) -> None:
        response = predict(image_to_base64(IMAGES / photo))
        self.assertEqual(response.status_code, 200, response.text)
        answer = response.json()
        self.assertEqual((answer["status"], answer["pet_type"]), ("Success", pet_type))
        self.assertGreater(answer["model_conf"], 50)

    def test_cat_1_is_a_cat(self) -> None:
        self.check("cat_1.jpg", "CAT")

    def test_cat_2_is_a_cat(self) -> None:
        self.check("cat_2.jpg", "CAT")

    def test_dog_1_is_a_dog(self) -> None:
        self.check("dog_1.jpg", "DOG")

    def test_dog_2_is_a_dog(self) -> None:
        self.check("dog_2.jpg", "DOG")

    def test_text_that_is_no_base64_is_refused(self) -> None:
        response = predict("isto não é base64")
        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"status": "Failed", "msg": "Image base64 invalid"})


if __name__ == "__main__":
    unittest.main()
