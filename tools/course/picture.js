// Runs in the browser, after Mermaid: turns its SVG into a plain one.
//
// Mermaid writes a style sheet, and a class and an id for each element. A page that shows the picture may refuse style
// sheets. So each element gets the attributes that the browser has computed for it, and nothing else is kept.

// What is kept of each element: its geometry, and where lines have their arrows.
const GEOMETRY = {
    g: ["transform"],
    path: ["d", "transform"],
    rect: ["x", "y", "width", "height", "rx", "transform"],
    line: ["x1", "y1", "x2", "y2"],
    circle: ["cx", "cy", "r"],
    polygon: ["points", "transform"],
    text: ["x", "y", "dy", "transform"],
    tspan: ["x", "y", "dy"],
};
const MARKER = ["viewBox", "refX", "refY", "markerUnits", "markerWidth", "markerHeight", "orient"];
// These are inherited: an element needs one only if it differs from its parent's.
const INHERITED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-weight", "font-style",
    "text-anchor", "dominant-baseline"];
const INITIAL = { fill: "#000", stroke: "none", "stroke-width": "1px", "stroke-dasharray": "none", "font-size": "16px",
    "font-weight": "400", "font-style": "normal", "text-anchor": "start", "dominant-baseline": "auto" };
const EDGE = [["stroke", "#fff"], ["stroke-width", "5"], ["stroke-linejoin", "round"], ["paint-order", "stroke"]];
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

const escaped = (text) => text.replace(/[&<>"]/g, (character) => ESCAPES[character]);

// Nobody sees smaller parts of a pixel.
const rounded = (text) => text.replace(/-?\d+\.\d+(e-?\d+)?(?!\d|em)/g, (number) => String(Math.round(number * 10) / 10));

function shortColour(value) {
    const parts = value.match(/^rgb\((\d+), (\d+), (\d+)\)$/);
    return parts ? "#" + parts.slice(1).map((part) => Number(part).toString(16).padStart(2, "0")).join("") : value;
}

function styleOf(element) {
    const computed = getComputedStyle(element);
    const style = Object.fromEntries(INHERITED.map((name) => [name, shortColour(computed.getPropertyValue(name))]));
    // Dashes without gaps are a line.
    if (/^(\d+px, )?0px$/.test(style["stroke-dasharray"])) style["stroke-dasharray"] = "none";
    return style;
}

function attributes(entries) {
    return entries.map(([name, value]) => ` ${name}="${escaped(rounded(value))}"`).join("");
}

// eslint-disable-next-line no-unused-vars -- draw.py calls it
function plain(svg) {
    const markers = new Map();

    function marker(reference) {
        const id = reference.match(/#([^")]+)/)[1];
        if (!markers.has(id)) markers.set(id, `m${markers.size + 1}`);
        return `url(#${markers.get(id)})`;
    }

    function written(element, inherited) {
        if (element.nodeType === Node.TEXT_NODE) return escaped(element.data);
        const kept = GEOMETRY[element.localName];
        if (!kept || getComputedStyle(element).display === "none") return "";
        const style = styleOf(element);
        const own = kept.filter((name) => element.hasAttribute(name)).map((name) => [name, element.getAttribute(name)]);
        for (const name of INHERITED) if (style[name] !== inherited[name]) own.push([name, style[name]]);
        for (const name of ["marker-start", "marker-end"]) {
            if (element.hasAttribute(name)) own.push([name, marker(element.getAttribute(name))]);
        }
        // A label that crosses a line stays legible with a white edge.
        const crosses = element.parentNode === svg || element.closest(".cluster-label");
        if (element.localName === "text" && crosses) own.push(...EDGE);
        const isText = ["text", "tspan"].includes(element.localName);
        const nodes = isText ? [...element.childNodes] : [...element.children];
        const inside = nodes.map((child) => written(child, style)).join("");
        if (element.localName === "g") {
            if (!inside) return "";
            return own.length ? `<g${attributes(own)}>\n${inside}</g>\n` : inside;
        }
        if (isText && !inside.trim()) return "";
        // Mermaid makes an element of each word, and an empty rectangle behind each label.
        if (element.localName === "tspan" && !own.length) return inside;
        if (element.localName === "rect" && !element.hasAttribute("width")) return "";
        const end = element.localName === "tspan" ? "" : "\n";
        return `<${element.localName}${attributes(own)}${inside ? `>${inside}</${element.localName}>` : "/>"}${end}`;
    }

    function writtenMarker([id, short]) {
        const element = svg.querySelector(`[id="${id}"]`);
        const own = MARKER.filter((name) => element.hasAttribute(name)).map((name) => [name, element.getAttribute(name)]);
        const shapes = [...element.children].map((child) => written(child, INITIAL)).join("");
        return `<marker id="${short}"${attributes(own)}>${shapes}</marker>\n`;
    }

    // Titles of groups come last, so that they are above the lines.
    for (const label of svg.querySelectorAll(".cluster-label")) label.closest(".root").append(label);
    const shapes = [...svg.children].map((child) => written(child, INITIAL)).join("");
    const box = svg.viewBox.baseVal;
    const described = (name) => svg.querySelector(`:scope > ${name}`)?.textContent ?? "";
    return {
        box: [box.x, box.y, box.x + box.width, box.y + box.height],
        title: escaped(described("title")),
        description: escaped(described("desc")),
        smallest: Math.min(...[...svg.querySelectorAll("text")].map((text) => parseFloat(getComputedStyle(text).fontSize))),
        shapes: [...markers].map(writtenMarker).join("") + shapes,
    };
}
