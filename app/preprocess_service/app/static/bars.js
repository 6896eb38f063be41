// The labels of an answer, each with its probability as a bar.

import { element } from "./elements.js";
import { number, percent, sayCount, sayLabel } from "./words.js";

// So many labels are shown at first.
const BARS = 5;

// The first ones, and the others behind a button. `entries`: [[label, probability], ...] of `total` labels.
export function bars(entries, total) {
  const all = entries.map(bar);
  const others = all.slice(BARS);
  if (!others.length) return all;
  const words = sayCount("more", others.length, { total: number(total) });
  const button = element("button", { type: "button", class: "quiet more" }, words);
  const show = (shown) => others.forEach((other) => (other.hidden = !shown));
  button.addEventListener("click", () => {
    show(true);
    button.remove();
  });
  show(false);
  return [...all, button];
}

function bar([label, probability]) {
  const fill = element("span", { class: "fill" });
  fill.style.inlineSize = `${100 * probability}%`;
  const meter = { role: "meter", "aria-label": sayLabel(label), "aria-valuemin": 0, "aria-valuemax": 100 };
  return element(
    "div",
    {
      class: "bar",
      "data-pet": label,
      ...meter,
      "aria-valuenow": (100 * probability).toFixed(2),
      "aria-valuetext": percent(probability),
    },
    element("span", {}, sayLabel(label)),
    element("span", { class: "track" }, fill),
    element("span", { class: "number" }, percent(probability)),
  );
}
