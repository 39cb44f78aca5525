// Questions and answers: dialogs that return promises, and notes that go by themselves.

import { h } from "./dom.js";

const NOTE_MS = 6000;
let ids = 0;
const nextId = () => `made-${(ids += 1)}`;

export function note(text, bad = false) {
  const node = h("div", { class: bad ? "note bad" : "note" }, text);
  document.getElementById("news").append(node);
  setTimeout(() => node.remove(), NOTE_MS);
}

// Run what a button stands for; what goes wrong becomes a note.
export async function attempt(work, done) {
  try {
    const result = await work();
    if (done) note(done);
    return result;
  } catch (error) {
    if (error.status !== 401) note(error.message, true);
    return undefined;
  }
}

export function dialog(title, content, { wide = false } = {}) {
  const heading = h("h2", { id: nextId() }, title);
  const node = h("dialog", { class: wide ? "wide" : null, "aria-labelledby": heading.id }, heading, content);
  node.addEventListener("close", () => node.remove());
  document.body.append(node);
  node.showModal();
  return node;
}

// A form in a dialog. `work` gets the form's data; the dialog stays, with the reason, until it succeeds.
export function form(title, fields, { label = "Save", danger = false, work }) {
  return new Promise((resolve) => {
    let result;
    const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    const go = h("button", { class: danger ? "main danger" : "main" }, label);
    const cancel = h("button", { type: "button", onclick: () => node.close() }, "Cancel");
    const body = h("form", { method: "dialog" }, fields, wrong, h("div", { class: "foot" }, cancel, go));
    const node = dialog(title, body);
    node.addEventListener("close", () => resolve(result));
    body.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        result = (await work(new FormData(body))) ?? true;
        node.close();
      } catch (error) {
        wrong.textContent = error.message;
        wrong.hidden = false;
      }
      go.disabled = false;
    });
    body.querySelector("input, select, textarea, button.main")?.focus();
  });
}

export const confirm = (title, text, label, work) => form(title, h("p", {}, text), { label, danger: true, work });

export function field(label, control, hint) {
  control.id = nextId();
  const told = hint ? h("small", { id: nextId() }, hint) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), told, control);
}

export function options(name, pairs, chosen) {
  return h("select", { name }, pairs.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(button.previousSibling); // not allowed without TLS: ready for Ctrl-C
  }
}

// A text that is to be taken along.
export function secret(label, text) {
  const button = h("button", { type: "button", "aria-label": `Copy ${label.toLowerCase()}`, onclick: () => copy(text, button) }, "Copy");
  return h("div", { class: "field" }, h("span", { class: "label-text" }, label), h("div", { class: "secret" }, h("code", {}, text), button));
}

export function tell(title, ...content) {
  return new Promise((resolve) => {
    const close = h("button", { type: "button", class: "main", onclick: () => node.close() }, "Done");
    const node = dialog(title, h("div", {}, content, h("div", { class: "foot" }, close)));
    node.addEventListener("close", resolve);
  });
}

// An editor of a JSON document. `save` gets the parsed value.
export function jsonEditor(label, value, save) {
  const area = h("textarea", { "aria-label": label, spellcheck: "false" });
  area.value = value === null ? "" : JSON.stringify(value, null, 2);
  area.setSelectionRange(0, 0);
  const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const told = (text) => {
    wrong.textContent = text;
    wrong.hidden = !text;
  };
  const run = async () => {
    let parsed;
    try {
      parsed = JSON.parse(area.value);
    } catch (error) {
      return told(`This is not JSON: ${error.message}`);
    }
    try {
      await save(parsed);
      told("");
      return true;
    } catch (error) {
      return told(error.message);
    }
  };
  return { node: h("div", {}, area, wrong), area, run };
}
