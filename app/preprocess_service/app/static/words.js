// What the page says, in the language in use.

import { LANGUAGES, NEUTRAL } from "./texts.js";

// The model's name where the page is for another one than CAT-DOG, as the service wrote it into the page.
export const ownModel = globalThis.document?.documentElement.dataset.model;
const KEPT_AS = "language";

let current = remembered() ?? preferred();

// The language in use, as an HTML `lang`.
export const language = () => current;

// The language that the button offers.
export const otherLanguage = () => (current === "en" ? "pt-BR" : "en");

export function useLanguage(name) {
  current = name;
  try {
    localStorage.setItem(KEPT_AS, name);
  } catch {
    // A browser may forbid to keep anything; then the choice lasts until the page is closed.
  }
}

// The words for `key`, each {name} in them replaced.
export function say(key, values = {}) {
  const words = (ownModel !== undefined && NEUTRAL[current][key]) || LANGUAGES[current][key];
  return words.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// The words for a number of things: `key_one` or `key_other`, as the language's grammar wants.
export function sayCount(key, count, values = {}) {
  const form = new Intl.PluralRules(current).select(count) === "one" ? "one" : "other";
  return say(`${key}_${form}`, { ...values, count: number(count) });
}

// A model of one's own may have other labels; they are shown as they are.
export const sayLabel = (label) => (label === "CAT" || label === "DOG" ? say(label) : label);

export function number(value, digits = 0) {
  return new Intl.NumberFormat(current, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

// A probability from 0 to 1 in percent. Rounding must not make a sure thing of what is none.
export function percent(value) {
  if (value > 0 && value < 0.0001) return `< ${number(0.01, 2)} %`;
  if (value < 1 && value > 0.9999) return `> ${number(99.99, 2)} %`;
  return `${number(100 * value, 2)} %`;
}

export const milliseconds = (value) => `${number(value, value < 10 ? 1 : 0)} ms`;

export function size(bytes) {
  if (bytes < 1e3) return `${number(bytes)} B`;
  return bytes < 1e6 ? `${number(bytes / 1e3)} kB` : `${number(bytes / 1e6, 1)} MB`;
}

function remembered() {
  try {
    const name = localStorage.getItem(KEPT_AS);
    return Object.hasOwn(LANGUAGES, name ?? "") ? name : null;
  } catch {
    return null;
  }
}

function preferred() {
  const first = navigator.languages.find((tag) => /^(en|pt)\b/i.test(tag)) ?? "en";
  return /^pt\b/i.test(first) ? "pt-BR" : "en";
}
