// Makes the page's elements. Data reaches the page through here alone, and only as text.

const SVG = "http://www.w3.org/2000/svg";

export function element(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function drawing(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function icon(path) {
  const line = drawing("path", { d: path });
  return drawing("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", class: "icon" }, line);
}

let ids = 0;
export const uniqueId = () => `made-${(ids += 1)}`;

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
