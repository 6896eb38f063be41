// The page: takes photos in however they come, sends a few at a time, and keeps the cards.

import { setUpCamera } from "./camera.js";
import { Card } from "./card.js";
import { element } from "./elements.js";
import { showGolden } from "./golden.js";
import { askForKey, setUpKey } from "./key.js";
import { classify, describeModel, UNAUTHORIZED } from "./service.js";
import { language, otherLanguage, number, ownModel, say, sayCount, sayLabel, useLanguage } from "./words.js";

// More would only wait in the service instead of here.
const AT_ONCE = 3;
const LOG_LINES = 20;
// As many labels as an answer has by itself. Of a model with a thousand nobody reads more than the second.
const LABELS_GIVEN = 5;
const MOST_LABELS = 20;
const LABELS_NAMED = 15;
const LANGUAGE_NAMES = { en: "English", "pt-BR": "Português" };

// The type of what a sample carries while it is dragged: a browser makes no file of it.
const SAMPLE = "text/x-sample";

const byId = (id) => document.getElementById(id);
const cards = new Set();
const queue = [];
let underWay = 0;
let pasted = 0;
// The model, and the promise that it is known, or known to be away.
let model;
let described;

// --- photos come in

// `photos`: [{file, url?, unsaved?}, ...], as Card takes them.
function add(photos) {
  byId("notice").textContent = "";
  const made = photos.map((photo) => new Card(photo, remove, enqueue));
  made.forEach((card) => cards.add(card));
  byId("cards").prepend(...made.map((card) => card.root));
  made.forEach(enqueue);
  if (made.length) bringIntoView(made[0].root);
}

const addFiles = (files) => add([...files].map((file) => ({ file })));

function complain(key) {
  byId("notice").textContent = say(key);
}

function setUpChoosing() {
  byId("choose").addEventListener("click", () => byId("files").click());
  for (const input of [byId("files"), byId("phone-camera")]) {
    input.addEventListener("change", () => {
      addFiles(input.files);
      // So that the same photo can be chosen again.
      input.value = "";
    });
  }
}

// The whole page takes drops: one that misses its mark would otherwise open the photo in place of the page.
function setUpDropping() {
  const face = byId("drop");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    face.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) face.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    face.classList.remove("over");
    const sample = sampleButtons().find(({ dataset }) => dataset.sample === event.dataTransfer.getData(SAMPLE));
    if (sample) addSample(sample.dataset.sample);
    else if (event.dataTransfer.files.length) addFiles(event.dataTransfer.files);
    else complain("nothingDropped");
  });
}

function setUpPasting() {
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) {
      complain("nothingPasted");
      return;
    }
    event.preventDefault();
    add(files.map(renamed));
  });
}

// Every picture out of a clipboard is called image.png.
function renamed(file) {
  if (!/^image\.\w+$/.test(file.name)) return { file };
  pasted += 1;
  return {
    file: new File([file], `${say("pastedFile")}-${pasted}.${file.name.split(".").pop()}`, { type: file.type }),
    unsaved: true,
  };
}

const sampleButtons = () => [...document.querySelectorAll("[data-sample]")];

function setUpSamples() {
  for (const button of sampleButtons()) {
    button.addEventListener("click", () => addSample(button.dataset.sample));
    button.addEventListener("dragstart", (event) => event.dataTransfer.setData(SAMPLE, button.dataset.sample));
    const image = button.querySelector("img");
    image.addEventListener("error", () => hideSample(button));
    if (image.complete && !image.naturalWidth) hideSample(button);
  }
}

// A service may be set up without the samples.
function hideSample(button) {
  button.parentElement.hidden = true;
  byId("samples-title").hidden = !document.querySelector("#samples > :not([hidden])");
}

async function addSample(name) {
  const url = new URL(`samples/${name}`, document.baseURI).href;
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(response.statusText);
    add([{ file: new File([await response.blob()], name, { type: "image/jpeg" }), url }]);
  } catch {
    complain("sampleAway");
  }
}

// --- photos are asked about

function enqueue(card) {
  card.show({ problem: "waiting" });
  queue.push(card);
  update();
  next();
}

function next() {
  while (underWay < AT_ONCE && queue.length) {
    underWay += 1;
    ask(queue.shift()).finally(() => {
      underWay -= 1;
      next();
    });
  }
}

async function ask(card) {
  card.show({ problem: "looking" });
  try {
    await described;
    const total = model?.labels.length;
    const top_k = total > LABELS_GIVEN && Math.min(total, MOST_LABELS);
    const outcome = await classify(card.file, language(), card.abort.signal, { top_k, explain: model?.attention });
    if (outcome.answer) outcome.answer.total = total;
    card.show(outcome);
  } catch (error) {
    if (card.abort.signal.aborted) return;
    throw error;
  }
  if (card.outcome.status === UNAUTHORIZED) askForKey(true);
  announce(card.summary);
  update();
  if (!model && card.outcome.answer) described = showModel();
}

function announce(text) {
  const log = byId("log");
  log.append(element("p", {}, text));
  if (log.childElementCount > LOG_LINES) log.firstElementChild.remove();
}

// --- cards are kept

function remove(card) {
  const neighbour = card.root.nextElementSibling ?? card.root.previousElementSibling;
  discard(card);
  update();
  (neighbour?.querySelector(".remove") ?? byId("choose")).focus();
}

function discard(card) {
  cards.delete(card);
  if (queue.includes(card)) queue.splice(queue.indexOf(card), 1);
  card.discard();
}

function clear() {
  [...cards].forEach(discard);
  update();
  byId("choose").focus();
}

function update() {
  const finished = [...cards].filter((card) => card.isFinished).length;
  const progress = byId("progress");
  progress.max = Math.max(1, cards.size);
  progress.value = finished;
  progress.hidden = finished === cards.size;
  byId("empty").hidden = cards.size > 0;
  byId("clear").hidden = cards.size === 0;
  byId("tally").textContent = tally();
}

// "5 photos · Cat 3 · Dog 1 · 1 failed"
function tally() {
  if (!cards.size) return "";
  const counts = new Map();
  for (const { outcome } of cards) {
    const label = outcome.answer?.label;
    if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  const failed = [...cards].filter((card) => card.isFinished && card.outcome.problem).length;
  const labels = [...counts].sort().map(([label, count]) => `${sayLabel(label)} ${count}`);
  return [sayCount("count", cards.size), ...labels, ...(failed ? [sayCount("failed", failed)] : [])].join(" · ");
}

// On a phone the answers are below what was tapped.
function bringIntoView(root) {
  if (root.getBoundingClientRect().top < innerHeight * 0.8) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("answers").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
}

// --- words

async function showModel() {
  model = await describeModel();
  if (model === undefined) askForKey(false);
  sayModel();
  if (ownModel !== undefined && model) showGolden(model.golden, add);
}

function sayModel() {
  if (model === undefined) return;
  byId("model").textContent = model ? `${say("model", model)}${ownModel === undefined ? "" : `. ${sayLabels()}`}` : say("modelAway");
}

function sayLabels() {
  const labels = model.labels.slice(0, LABELS_NAMED).join(", ");
  const more = model.labels.length - LABELS_NAMED;
  return more > 0 ? say("labelsMore", { labels, more: number(more) }) : say("labels", { labels });
}

function sayEverything() {
  document.documentElement.lang = language();
  document.title = ownModel === undefined ? say("title") : `${ownModel}: ${say("title")}`;
  for (const node of document.querySelectorAll("[data-words]")) node.textContent = say(node.dataset.words);
  for (const node of document.querySelectorAll("[data-alt]")) node.alt = say(node.dataset.alt, node.dataset);
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", say(node.dataset.label));
  }
  const button = byId("language");
  button.lang = otherLanguage();
  button.textContent = LANGUAGE_NAMES[otherLanguage()];
  // The course has a folder for each language. A page without the course has no link.
  byId("course")?.setAttribute("href", `course/${language().slice(0, 2)}/`);
  byId("notice").textContent = "";
  byId("log").replaceChildren();
  sayModel();
  cards.forEach((card) => card.render());
  update();
}

byId("language").addEventListener("click", () => {
  useLanguage(otherLanguage());
  sayEverything();
});
byId("clear").addEventListener("click", clear);
// The samples of a model of one's own are not known yet.
if (ownModel !== undefined) byId("samples-title").hidden = true;
sayEverything();
setUpChoosing();
setUpDropping();
setUpPasting();
setUpSamples();
setUpKey(() => {
  described = showModel();
  [...cards].filter(({ outcome }) => outcome.status === UNAUTHORIZED).forEach(enqueue);
});
setUpCamera((file) => add([{ file, unsaved: true }]));
described = showModel();
