// One photo's way to the service and back.

import { authorization } from "./key.js";

// Where the routes of the page's model are; the service writes it into the page if there are several models.
const ROUTES = new URL(document.documentElement.dataset.routes ?? ".", document.baseURI);

export const ENDPOINT = new URL("predict", ROUTES).href;

export const UNAUTHORIZED = 401;

const PATIENCE_SECONDS = 60;
// A body this large may be refused and the connection closed while the browser still sends it.
const LARGE_BYTES = 10e6;

// The steps that the service tells of, in their order; `total` is all of its time.
const STEPS = ["read", "decode", "resize", "model", "second_look"];

// What to call a file's type in a request; the browser knows none for HEIC, and what it says is up to the system.
export function mediaType(file) {
  return /^image\/[\w.+-]+$/.test(file.type) ? file.type : "application/octet-stream";
}

// The service's answer with the time of each step, or why there is none:
// {answer, times} or {problem, ...what belongs to it}. Rejects only where `signal` aborts.
// `wanted`: {top_k, explain}; what is undefined or false is left to the service.
export async function classify(file, language, signal, wanted) {
  const outcome = await send(file, language, signal, wanted);
  // Another version of the model, without attention, may have answered by now.
  if (outcome.answer?.code !== "no_explanation") return outcome;
  return send(file, language, signal, { ...wanted, explain: false });
}

async function send(file, language, signal, wanted) {
  if (!(await isReadable(file))) return { problem: "unreadable" };
  signal.throwIfAborted();
  const query = String(new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)));
  const start = performance.now();
  const patience = limited(signal);
  try {
    const response = await fetch(query ? `${ENDPOINT}?${query}` : ENDPOINT, {
      method: "POST",
      headers: { "Content-Type": mediaType(file), "Accept-Language": language, ...authorization() },
      body: file,
      signal: patience.signal,
    });
    const text = await response.text();
    return understand(response, parse(text), performance.now() - start);
  } catch {
    signal.throwIfAborted();
    if (patience.signal.aborted) return { problem: "late", seconds: PATIENCE_SECONDS };
    return file.size > LARGE_BYTES ? { problem: "interrupted", bytes: file.size } : { problem: "unreachable" };
  } finally {
    patience.end();
  }
}

// A signal that aborts with `signal`, or when the patience is at its end.
// (AbortSignal.any and timeout say the same in a line, but phones of 2022 don't know them.)
function limited(signal) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, PATIENCE_SECONDS * 1000);
  signal.addEventListener("abort", abort);
  const end = () => {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  };
  return { signal: controller.signal, end };
}

// The model in use, or null where the service does not know it yet; undefined where it is told with a key only.
export async function describeModel() {
  try {
    const response = await fetch(new URL("model", ROUTES), { headers: authorization() });
    if (response.status === UNAUTHORIZED) return undefined;
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

// A photo that came with the model, as a file; null where it is not to be had.
export async function goldenPhoto(name) {
  try {
    const response = await fetch(goldenUrl(name), { headers: authorization() });
    if (!response.ok) return null;
    const photo = await response.blob();
    return new File([photo], name, { type: photo.type });
  } catch {
    return null;
  }
}

export const goldenUrl = (name) => new URL(`model/golden/${encodeURIComponent(name)}`, ROUTES).href;

// A folder, or a file that has been moved since it was chosen, looks like a file until one reads it.
async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

function understand(response, answer, roundTrip) {
  const { status } = response;
  if (!response.ok) {
    const wait = Number.parseInt(response.headers.get("Retry-After"), 10);
    const said = typeof answer?.msg === "string";
    return {
      problem: said ? "refused" : "wordless",
      status,
      wait,
      answer,
      language: response.headers.get("Content-Language"),
    };
  }
  if (!isAnswer(answer)) return { problem: "nonsense", status };
  return { answer, times: timesOf(response.headers.get("Server-Timing") ?? "", roundTrip) };
}

function isAnswer(answer) {
  const values = Object.values(answer?.probabilities ?? {});
  return (
    typeof answer?.label === "string" && values.length > 0 && values.every((value) => typeof value === "number")
  );
}

// {roundTrip, steps: [[name, milliseconds], ...]}; what is left of the service's total is `other`,
// what is left of the round trip `network`.
function timesOf(header, roundTrip) {
  const told = Object.fromEntries(
    [...header.matchAll(/([\w-]+)\s*;[^,]*?dur=([\d.]+)/g)].map(([, name, value]) => [name, Number(value)]),
  );
  const steps = STEPS.filter((name) => name in told).map((name) => [name, told[name]]);
  if ("total" in told) {
    const known = steps.reduce((sum, [, value]) => sum + value, 0);
    steps.push(["other", Math.max(0, told.total - known)], ["network", Math.max(0, roundTrip - told.total)]);
  }
  return { roundTrip, steps };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
