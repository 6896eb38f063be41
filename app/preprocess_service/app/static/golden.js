// The photos that came with a model of one's own: they are its samples.

import { element } from "./elements.js";
import { currentKey } from "./key.js";
import { goldenPhoto, goldenUrl } from "./service.js";
import { say } from "./words.js";

// `add` takes the photos that are clicked on, as Card does.
export async function showGolden(names, add) {
  const photos = (await Promise.all(names.map(goldenPhoto))).filter(Boolean);
  document.getElementById("samples").replaceChildren(...photos.map((photo) => goldenSample(photo, add)));
  document.getElementById("samples-title").hidden = !photos.length;
}

function goldenSample(file, add) {
  const source = URL.createObjectURL(file);
  const words = { alt: say("sample", file), "data-alt": "sample", "data-name": file.name };
  const image = element("img", { src: source, width: 96, height: 96, ...words });
  const button = element("button", { type: "button", "data-golden": file.name }, image);
  // With a key its address alone is not enough to fetch it.
  const photo = currentKey() ? { file, unsaved: true } : { file, url: goldenUrl(file.name) };
  button.addEventListener("click", () => add([photo]));
  const item = element("li", {}, button);
  // Browsers show no HEIC, and no TIFF.
  image.addEventListener("error", () => image.replaceWith(element("span", { class: "small" }, file.name)), { once: true });
  return item;
}
