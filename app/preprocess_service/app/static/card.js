// One photo on the page: its preview, and how far its answer has come.

import { bars } from "./bars.js";
import { element, icon, uniqueId } from "./elements.js";
import { explanationMap, explanationSwitch, isShownAsSeen } from "./explanation.js";
import { currentKey } from "./key.js";
import { ENDPOINT, mediaType } from "./service.js";
import { LANGUAGES, snippet } from "./snippets.js";
import { milliseconds, percent, say, sayCount, sayLabel, size } from "./words.js";

export class Card {
  // `photo`: {file, url?, unsaved?}: url where it is a sample of the service, unsaved where no file on disk holds it.
  constructor(photo, onRemove, onRetry) {
    this.photo = photo;
    this.onRetry = onRetry;
    this.abort = new AbortController();
    this.outcome = { problem: "waiting" };
    this.isExplained = false;
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
    else this.body.replaceChildren(...this.#answer());
    this.#showMap();
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
    // Only now its size is known.
    image.addEventListener("load", () => this.#showMap(), { once: true });
    return image;
  }

  #answer() {
    const { answer, times } = this.outcome;
    return [...verdict(answer), ...this.#explanation(), ...timing(times), this.#copyAs()];
  }

  #explanation() {
    const { explanation } = this.outcome.answer;
    if (!explanation) return [];
    const onSwitch = (isOn) => {
      this.isExplained = isOn;
      this.#showMap();
    };
    return [explanationSwitch(explanation, this.isExplained, onSwitch)];
  }

  #showMap() {
    const explanation = this.isExplained && this.outcome.answer?.explanation;
    const image = this.preview.querySelector("img");
    this.preview.querySelector(".map")?.remove();
    this.preview.classList.toggle("explained", Boolean(explanation));
    this.preview.classList.toggle("alone", Boolean(explanation) && !isShownAsSeen(image, explanation));
    if (explanation) this.preview.append(explanationMap(explanation, image));
  }

  // HEIC and TIFF, and what is no picture at all.
  #showPlaceholder() {
    const ending = this.file.name.match(/\.([\w-]{1,8})$/)?.[1] ?? "?";
    this.preview.classList.add("blank");
    this.preview.replaceChildren(
      element("p", { class: "ending", "aria-hidden": "true" }, ending),
      element("p", {}, say("noPreview")),
    );
    this.#showMap();
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
    ...(answer.looks > 1 ? [element("p", { class: "small" }, say("twice"))] : []),
    element(
      "div",
      { class: "bars", role: "group", "aria-label": say("probabilities") },
      ...bars(Object.entries(probabilities), answer.total),
    ),
  ];
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
