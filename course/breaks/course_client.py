"""Sends photos to the course's service, for the scripts of chapter 5."""

import base64
import os
import sys

import requests

URL = os.environ.get("COURSE_URL", "http://127.0.0.1:7999")


def get(path: str) -> requests.Response:
    """Ask for a light page of the service; end the program if no service answers."""
    try:
        return requests.get(URL + path, timeout=60)
    except requests.ConnectionError:
        sys.exit(f"{URL} does not answer. Start the service: python course/app_server.py")


def predict(photo: bytes) -> requests.Response:
    """Send a photo's bytes to the service and return its response; end the program if no service answers."""
    body = {"image_b64": base64.b64encode(photo).decode()}
    try:
        return requests.post(f"{URL}/predict", json=body, timeout=60)
    except requests.ConnectionError:
        sys.exit(f"{URL} does not answer. Start the service: python course/app_server.py")


def shown(response: requests.Response) -> str:
    """Return the response in one line."""
    if response.status_code != 200:
        return f"{response.status_code} {response.text}"
    answer = response.json()
    return f"{response.status_code} {answer['pet_type']} {answer['model_conf']:.2f}"
