// The request for a photo as text to paste: for a shell, for Python, for Node.js.
// A photo may have any name that a stranger gave it, so nothing of it may ever be taken for code.

// What stays itself between double quotes in sh, bash, zsh, fish, cmd and PowerShell alike.
const PLAIN = /^[\p{L}\p{M}\p{N}\p{So} ._,;:'()[\]{}@#=+&~^|<>?*/-]+$/u;
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

export const LANGUAGES = ["curl", "Python", "JavaScript"];

// `photo`: {name, type, url}; url where the photo is a sample, which the snippet then fetches first.
// `key`: of letters, digits and -._~+/=, which mean nothing to any shell; empty where the service asks for none.
export function snippet(language, endpoint, photo, key, onWindows = /^Win/.test(navigator.platform)) {
  const headers = { "Content-Type": photo.type, ...(key && { Authorization: `Bearer ${key}` }) };
  return { curl, Python: python, JavaScript: javascript }[language](endpoint, photo, headers, onWindows);
}

function curl(endpoint, { name, url }, headers, onWindows) {
  // In Windows PowerShell `curl` alone is another command.
  const program = onWindows ? "curl.exe" : "curl";
  const quoted = (text) => shellQuoted(text, onWindows);
  const lines = Object.entries(headers).map(([header, value]) => `-H "${header}: ${value}"`);
  const send = `${program} -s ${quoted(endpoint)} ${lines.join(" ")} --data-binary`;
  // A name of its own, for the folder may hold another cat_1.jpg; no pipe, for Windows PowerShell breaks bytes in it.
  if (url) return `${program} -s ${quoted(url)} -o sample-${name}\n${send} "@sample-${name}"\n`;
  // @- would be standard input.
  return `${send} ${quoted(`@${name === "-" ? "./-" : name}`)}\n`;
}

function shellQuoted(text, onWindows) {
  if (PLAIN.test(text)) return `"${text}"`;
  if (onWindows) return `'${text.replace(UNSEEN, "?").replace(/['‘’‚‛]/g, "$&$&")}'`;
  // ANSI-C quotes of bash, zsh and ksh, every unusual byte by its number: even a name that holds the
  // escape codes of a terminal is pasted as plain text.
  const bytes = [...new TextEncoder().encode(text)];
  return `$'${bytes.map((byte) => (/[\w.@ -]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : hex(byte))).join("")}'`;
}

const hex = (byte) => `\\x${byte.toString(16).padStart(2, "0")}`;

// Every line stands for itself, so that it can also be pasted into Python's prompt.
function python(endpoint, { name, url }, headers) {
  const post = `answer = requests.post(${literal(endpoint)}, data=photo, headers={${pairs(headers)}})`;
  const [imports, photo] = url
    ? ["", `requests.get(${literal(url)}).content`]
    : ["from pathlib import Path\n\n", `Path(${literal(name, pythonEscape)}).read_bytes()`];
  return `${imports}import requests  # pip install requests\n\nphoto = ${photo}\n${post}\nprint(answer.json())\n`;
}

// One expression, so that it can be pasted into Node's prompt or kept in a file, .js or .mjs.
function javascript(endpoint, { name, url }, headers) {
  const photo = url
    ? `  const photo = await (await fetch(${literal(url)})).arrayBuffer();`
    : `  const { readFile } = await import("node:fs/promises");\n  const photo = await readFile(${literal(name)});`;
  return `// Node.js >= 18
(async () => {
${photo}
  const answer = await fetch(${literal(endpoint)}, {
    method: "POST",
    headers: { ${pairs(headers)} },
    body: photo,
  });
  console.log(await answer.json());
})();
`;
}

const pairs = (headers) =>
  Object.entries(headers)
    .map(([header, value]) => `"${header}": ${literal(value)}`)
    .join(", ");

// JSON's escapes mean the same in Python and JavaScript; what the eye can't see is written by its number.
function literal(text, escape = javascriptEscape) {
  return JSON.stringify(text).replace(UNSEEN, escape);
}

const unit = (value) => `\\u${value.toString(16).padStart(4, "0")}`;
const javascriptEscape = (char) =>
  char
    .split("")
    .map((half) => unit(half.charCodeAt(0)))
    .join("");
const pythonEscape = (char) =>
  char.length === 1 ? unit(char.charCodeAt(0)) : `\\U${char.codePointAt(0).toString(16).padStart(8, "0")}`;
