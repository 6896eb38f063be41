// Takes a photo: with the camera of this computer in a dialog, or with a phone's own camera program.

import { say } from "./words.js";

const byId = (id) => document.getElementById(id);
const dialog = byId("camera");
const video = byId("video");
const shutter = byId("shutter");
const problem = byId("camera-problem");
const button = byId("use-camera");
const phoneInput = byId("phone-camera");

let taken = 0;

// Calls `onPhoto` with a File for each photo that is taken.
export function setUpCamera(onPhoto) {
  button.addEventListener("click", () => (isPhone() ? phoneInput.click() : open()));
  shutter.addEventListener("click", async () => {
    const photo = await shoot();
    dialog.close();
    onPhoto(photo);
  });
  byId("close-camera").addEventListener("click", () => dialog.close());
  // However it is closed, the Escape key included, the camera's light goes out.
  dialog.addEventListener("close", stop);
  navigator.mediaDevices?.addEventListener("devicechange", offer);
  offer();
}

async function offer() {
  button.hidden = !isPhone() && !(await hasCamera());
}

// A phone's own camera program focuses, flashes and turns better than a page can.
const isPhone = () => matchMedia("(hover: none) and (pointer: coarse)").matches;

// Browsers give the camera to secure pages only; http://another-machine is none.
async function hasCamera() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.some(({ kind }) => kind === "videoinput");
}

async function open() {
  problem.textContent = "";
  dialog.showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, facingMode: "environment" },
    });
    video.srcObject = stream;
    if (!dialog.open) stop();
    else await video.play();
    shutter.disabled = !dialog.open;
    shutter.focus();
  } catch (error) {
    if (dialog.open) problem.textContent = say(reason(error));
  }
}

function reason({ name }) {
  if (name === "NotAllowedError" || name === "SecurityError") return "cameraRefused";
  return name === "NotFoundError" ? "cameraMissing" : "cameraBusy";
}

function stop() {
  shutter.disabled = true;
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

async function shoot() {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  taken += 1;
  return new File([blob], `camera-${taken}.jpg`, { type: "image/jpeg" });
}
