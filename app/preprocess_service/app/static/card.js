// One photo on the page: its preview, and how far its answer has come.

import { currentKey } from "./key.js";
import { ENDPOINT, mediaType } from "./service.js";
import { LANGUAGES, snippet } from "./snippets.js";
import { milliseconds, number, percent, say, sayCount, sayLabel, size } from "./words.js";

// So many labels are shown at first.
const BARS = 5;

export class Card {
  // `photo`: {file, url?, unsaved?}: url where it is a sample of the service, unsaved where no file on disk holds it.
  constructor(photo, onRemove, onRetry) {
    this.photo = photo;
    this.onRetry = onRetry;
    this.abort = new AbortController();
    this.outcome = { problem: "waiting" };
    this.objectUrl = URL.createObjectURL(photo.file);
    this.preview = element("div", { class: "preview" }, this.#image());
    this.name = element("h3", { tabindex: "-1" }, element("bdi", {}, photo.file.name));
    this.removeButton = element("button", { type: "button", class: "remove" }, icon("M4 4 L12 12 M12 4 L4 12"));
    this.removeButton.addEventListener("click", () => onRemove(this));
    this.body = element("div", { class: "card-body" });
    this.root = element(
      "li",
      { class: "card" },
      this.preview,
      element("div", { class: "card-head" }, this.name, this.removeButton),
      this.body,
    );
    this.render();
  }

  get isFinished() {
    return !["waiting", "looking"].includes(this.outcome.problem);
  }

  get file() {
    return this.photo.file;
  }

  show(outcome) {
    this.outcome = outcome;
    this.render();
  }

  // Everything in the language of the moment.
  render() {
    const { answer, problem } = this.outcome;
    this.removeButton.setAttribute("aria-label", say("remove", { name: this.file.name }));
    const image = this.preview.querySelector("img");
    if (image) image.alt = say("preview", { name: this.file.name });
    else this.#showPlaceholder();
    this.root.setAttribute("aria-busy", String(!this.isFinished));
    this.root.dataset.state = problem ?? "done";
    if (!this.isFinished) this.body.replaceChildren(waiting(problem));
    else if (problem) this.body.replaceChildren(...this.#failure());
    else this.body.replaceChildren(...verdict(answer), ...timing(this.outcome.times), this.#copyAs());
  }

  // One sentence for who can't see the card.
  get summary() {
    const { answer, problem } = this.outcome;
    const name = this.file.name;
    if (problem) return `${name}: ${say("failed")}. ${explain(this.outcome)}`;
    const doubt = answer.in_domain === false ? `. ${say("neither")}` : "";
    return `${name}: ${sayLabel(answer.label)}, ${percent(answer.probabilities[answer.label])}${doubt}`;
  }

  discard() {
    this.abort.abort();
    URL.revokeObjectURL(this.objectUrl);
    this.root.remove();
  }

  #image() {
    const image = element("img", { src: this.objectUrl, loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => this.#showPlaceholder(), { once: true });
    return image;
  }

  // HEIC and TIFF, and what is no picture at all.
  #showPlaceholder() {
    const ending = this.file.name.match(/\.([\w-]{1,8})$/)?.[1] ?? "?";
    this.preview.classList.add("blank");
    this.preview.replaceChildren(
      element("p", { class: "ending", "aria-hidden": "true" }, ending),
      element("p", {}, say("noPreview")),
    );
  }

  #failure() {
    const { problem, status, answer, language } = this.outcome;
    // The service's own words may be in another language than the page by now.
    const message = element("p", problem === "refused" && language ? { lang: language } : {}, explain(this.outcome));
    const details = [status, answer?.code, answer?.request_id && say("request", { id: answer.request_id })].filter(
      Boolean,
    );
    return [
      element(
        "div",
        { class: "failure" },
        element("p", { class: "strong" }, icon("M8 1.500 L15 14 H1 Z M8 6 V9.500 M8 11.700 V12"), say("failed")),
        message,
      ),
      ...(details.length ? [element("p", { class: "small details" }, details.join(" · "))] : []),
      ...(mayPass(this.outcome) ? [element("div", { class: "actions" }, this.#retryButton())] : []),
    ];
  }

  #retryButton() {
    const button = element("button", { type: "button" }, say("retry"));
    button.addEventListener("click", () => {
      // The button goes away; who works by keyboard stays at the card.
      this.name.focus();
      this.onRetry(this);
    });
    return button;
  }

  #copyAs() {
    const buttons = LANGUAGES.map((language) =>
      element("button", { type: "button", "aria-pressed": "false" }, language),
    );
    const box = element("div", { class: "code", hidden: "" });
    const label = element("span", { class: "small", id: uniqueId() }, say("copyAs"));
    const group = element("div", { class: "actions", role: "group", "aria-labelledby": label.id }, label, ...buttons);
    buttons.forEach((button, index) =>
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") === "true";
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button && !pressed)));
        box.hidden = pressed;
        if (!pressed) this.#showCode(box, LANGUAGES[index]);
      }),
    );
    if (this.photo.unsaved) group.append(this.#saveLink());
    return element("div", {}, group, box);
  }

  #saveLink() {
    return element("a", { class: "button", href: this.objectUrl, download: this.file.name }, say("save"));
  }

  async #showCode(box, language) {
    const photo = { name: this.file.name, type: mediaType(this.file), url: this.photo.url };
    const text = snippet(language, ENDPOINT, photo, currentKey());
    const code = element("pre", { tabindex: "0", role: "region", "aria-label": say("code", { language }) }, text);
    const status = element("p", { class: "small", role: "status" });
    box.replaceChildren(code, status);
    const copied = await copy(text, code);
    status.textContent = say(copied ? this.#copiedWords() : "notCopied");
  }

  #copiedWords() {
    if (this.photo.url) return "copiedSample";
    return this.photo.unsaved ? "copiedUnsaved" : "copied";
  }
}

// What is wrong with the photo itself stays wrong however often it is sent.
const mayPass = ({ status, problem }) => (status === undefined || status >= 500) && problem !== "unreadable";

// Why there is no answer, in plain words.
function explain({ problem, answer, status, wait, seconds, bytes }) {
  const words = problem === "refused" ? answer.msg : say(problem, { status, seconds, size: bytes && size(bytes) });
  return wait > 0 ? `${words} ${sayCount("wait", wait)}` : words;
}

function waiting(problem) {
  return element(
    "div",
    { class: "looking" },
    element("progress", { "aria-label": say(problem) }),
    element("p", { class: "small" }, say(problem)),
  );
}

function verdict(answer) {
  const { label, probabilities } = answer;
  const doubt = answer.in_domain === false;
  return [
    element(
      "p",
      { class: "verdict", "data-pet": label },
      element("strong", {}, sayLabel(label)),
      element("span", {}, percent(probabilities[label])),
    ),
    ...(doubt ? [element("p", { class: "doubt" }, say("neither"))] : []),
    element(
      "div",
      { class: "bars", role: "group", "aria-label": say("probabilities") },
      ...bars(Object.entries(probabilities), answer.total),
    ),
  ];
}

// The first ones, and the others behind a button.
function bars(entries, total) {
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

function timing({ roundTrip, steps }) {
  const title = element(
    "p",
    { class: "small time" },
    element("span", {}, say("time")),
    element("span", {}, say("total", { time: milliseconds(roundTrip) })),
  );
  if (!steps.length) return [title];
  const strip = element(
    "div",
    { class: "strip", "aria-hidden": "true" },
    ...steps.map(([name, value]) => {
      const part = element("span", { "data-step": name });
      part.style.flexGrow = value;
      return part;
    }),
  );
  return [title, strip, element("ul", { class: "steps" }, ...steps.map(step))];
}

function step([name, value]) {
  // `model` is also what the service calls its step; the page has another word under that key.
  const key = name === "model" ? "predict" : name;
  const help = say(`${key}Help`);
  const words = element("span", { title: help }, say(key), element("span", { class: "unseen" }, ` (${help})`));
  return element("li", { "data-step": name }, words, " ", element("span", { class: "number" }, milliseconds(value)));
}

// Browsers give their clipboard to secure pages only; http://another-machine is none.
async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}

// Data reaches the page through here alone, and only as text.
export function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function icon(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  svg.append(line);
  return svg;
}

let ids = 0;
const uniqueId = () => `made-${(ids += 1)}`;
