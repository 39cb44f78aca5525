// Elements from values. Text is only ever set as text: nothing that a user stored can become markup.

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

// The part of an address behind #: each part may hold anything.
export const addressOf = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(value < 10 ? 2 : 1)} ${UNITS[unit]}`;
}

export const number = (value) => value.toLocaleString("en");

export function when(value) {
  const date = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  return date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export function ago(seconds) {
  const steps = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of steps) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

// "10 GiB", "500M", "1000" → bytes; null for nothing; NaN for what is none.
export function parseSize(text) {
  if (!text.trim()) return null;
  const match = /^([\d.]+)\s*([kmgtp]?)(i?b)?$/i.exec(text.trim());
  if (!match) return NaN;
  const power = match[2] ? "kmgtp".indexOf(match[2].toLowerCase()) + 1 : 0;
  return Math.round(Number(match[1]) * 1024 ** power);
}

// On narrow screens rows become blocks: each cell knows its title, and the first with a name takes the room.
function cellOf(columns, at) {
  const named = columns.findIndex((each) => each.title);
  return { class: columns[at].class, "data-title": columns[at].title || null, "data-first": at === named };
}

export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  return h("div", { class: "table-frame", role: "region", "aria-label": caption, tabindex: "0" },
    h("table", {},
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map((each) => h("th", { scope: "col", class: each.class }, each.title)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, at) => h("td", cellOf(columns, at), cell)))))));
}

// `role`: a meter warns when it is nearly full, a progressbar does not.
export function meter(label, part, whole, text, role = "meter") {
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  const bar = h("div", { class: `meter-bar${role === "meter" && share > 0.9 ? " full" : ""}` });
  bar.style.width = `${(100 * share).toFixed(1)}%`;
  return h("div", { class: "meter", role, "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": Math.round(100 * share), "aria-valuetext": text }, bar);
}
