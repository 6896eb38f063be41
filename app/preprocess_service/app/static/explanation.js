// Where the model looked: its map over a photo's preview, with the box of a second look, and both in words.

import { drawing, element, uniqueId } from "./elements.js";
import { say } from "./words.js";

// The names of the thirds of a photo, row by row.
const PLACES = [
  ["upperLeft", "upper", "upperRight"],
  ["left", "middle", "right"],
  ["lowerLeft", "lower", "lowerRight"],
];

// The switch, with words that say what it shows or, while it is on, what there is to see.
// `onSwitch` is called with whether it is on.
export function explanationSwitch(explanation, isOn, onSwitch) {
  const help = say("lookedHelp");
  const found = describe(explanation);
  const status = element("p", { role: "status", id: uniqueId() });
  const input = element("input", { type: "checkbox", role: "switch", "aria-describedby": status.id });
  const show = () => (status.textContent = input.checked ? found : help);
  input.checked = isOn;
  input.addEventListener("change", () => {
    show();
    onSwitch(input.checked);
  });
  show();
  // Both texts keep their room, unseen, so that nothing below moves.
  const room = [help, found].map((text) => element("p", { class: "room" }, text));
  return element(
    "div",
    { class: "looked" },
    element("label", {}, input, say("looked")),
    element("div", { class: "small" }, status, ...room),
  );
}

// How much a photo's sides may differ from what the service says of it: that may be at a reduced scale.
const TOLERANCE = 0.05;

// Whether the browser shows a photo as the model saw it. It may not know how the photo is to be turned.
export function isShownAsSeen(image, { aspect_ratio }) {
  return Math.abs(image?.naturalWidth / image?.naturalHeight / aspect_ratio - 1) < TOLERANCE;
}

// The map for a photo that is shown as the model saw it, to lie over it; else in a frame of the photo's shape.
export function explanationMap(explanation, image) {
  const { image: map, region, box, aspect_ratio } = explanation;
  const photo = isShownAsSeen(image, explanation)
    ? { width: image.naturalWidth, height: image.naturalHeight }
    : { width: 100 * aspect_ratio, height: 100 };
  const place = (part) => ({
    x: part.left * photo.width,
    y: part.top * photo.height,
    width: (part.right - part.left) * photo.width,
    height: (part.bottom - part.top) * photo.height,
  });
  const frame = (name, part) => drawing("rect", { class: name, ...place(part) });
  const whole = { left: 0, top: 0, right: 1, bottom: 1 };
  const picture = drawing(
    "svg",
    { viewBox: `0 0 ${photo.width} ${photo.height}`, "aria-hidden": "true" },
    frame("photo", whole),
    drawing("image", { href: map, preserveAspectRatio: "none", ...place(region) }),
    ...(box ? [frame("edge", box), frame("second-look", box)] : []),
  );
  const isTurned = image?.naturalWidth && !isShownAsSeen(image, explanation);
  return element("div", { class: "map" }, picture, ...(isTurned ? [element("p", {}, say("lookedTurned"))] : []));
}

function describe({ attention, region, box }) {
  const values = attention.flat();
  const most = Math.max(...values);
  if (!(most > 0)) return say("lookedNowhere");
  const index = values.indexOf(most);
  const columns = attention[0].length;
  const x = (index % columns + 0.5) / columns;
  const y = (Math.floor(index / columns) + 0.5) / attention.length;
  const brightest = placeName(
    region.left + x * (region.right - region.left),
    region.top + y * (region.bottom - region.top),
  );
  const sentences = [say("lookedMost", { place: brightest })];
  if (box) {
    const place = placeName((box.left + box.right) / 2, (box.top + box.bottom) / 2);
    sentences.push(say("lookedAgain", { place }));
  }
  return sentences.join(" ");
}

// `x` and `y` are shares of the photo's width and height.
function placeName(x, y) {
  const third = (share) => Math.min(2, Math.max(0, Math.floor(3 * share)));
  return say(PLACES[third(y)][third(x)]);
}
