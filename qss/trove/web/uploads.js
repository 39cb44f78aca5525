// Uploads go on while one looks elsewhere: a queue of their own, and a panel in the corner.

import { bytes, h } from "./dom.js";
import { upload } from "./s3.js";

const AT_ONCE = 3;
const SHOWN_MS = 8000;
let later = 0;
const waiting = [];
const going = new Set();
const panel = document.getElementById("uploads");
const list = h("ul", {});
const told = h("h2", { role: "status" }, "");
const close = h("button", { type: "button", class: "quiet", onclick: clear }, "Close");
panel.append(h("div", { class: "row" }, told, close), list);

function clear() {
  list.replaceChildren();
  panel.hidden = true;
}

// What went well needs no closing.
function clearLater() {
  clearTimeout(later);
  later = setTimeout(() => {
    if (!waiting.length && !going.size && !list.querySelector(".failed")) clear();
  }, SHOWN_MS);
}

function tell() {
  const left = waiting.length + going.size;
  told.textContent = left ? `Uploading ${left} ${left === 1 ? "file" : "files"}` : "Uploads are done";
  close.hidden = left > 0;
  if (!left) clearLater();
}

// What a drop brings: [{file, path}], with folders walked through.
export async function dropped(transfer) {
  const items = [...transfer.items].filter((each) => each.kind === "file");
  const entries = items.map((each) => ({ entry: each.webkitGetAsEntry?.(), file: each.getAsFile() }));
  const found = [];
  for (const { entry, file } of entries) {
    if (entry?.isDirectory) await walk(entry, found);
    else if (file) found.push({ file, path: file.name });
  }
  return found;
}

async function walk(folder, found) {
  const reader = folder.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) return;
    for (const entry of some) {
      if (entry.isDirectory) await walk(entry, found);
      else found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path: entry.fullPath.slice(1) });
    }
  }
}

// When all is done, the window gets an `uploaded`.
export function enqueue(bucket, prefix, files) {
  for (const { file, path } of files) {
    const bar = h("div", { class: "meter-bar" });
    const state = h("span", { class: "num" }, "waits");
    const stop = h("button", { type: "button", class: "quiet", "aria-label": `Cancel ${path}` }, "✕");
    const meter = h("div", { class: "meter", role: "progressbar", "aria-label": path, "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
    const row = h("li", {}, h("div", { class: "row" }, h("span", { class: "name", title: `${bucket}/${prefix}${path}` }, path), state, stop), meter);
    list.append(row);
    waiting.push({ bucket, key: prefix + path, file, bar, state, stop, meter, row });
    stop.addEventListener("click", () => {
      const at = waiting.findIndex((each) => each.row === row);
      if (at < 0) return;
      waiting.splice(at, 1);
      row.remove();
      tell();
    });
  }
  if (files.length) panel.hidden = false;
  next();
}

function next() {
  while (going.size < AT_ONCE && waiting.length) run(waiting.shift());
  tell();
}

async function run(one) {
  going.add(one);
  const { file, bar, state, stop, meter } = one;
  const progress = (loaded) => {
    const share = file.size ? Math.min(1, loaded / file.size) : 1;
    bar.style.width = `${(100 * share).toFixed(1)}%`;
    meter.setAttribute("aria-valuenow", Math.round(100 * share));
    state.textContent = `${bytes(Math.min(loaded, file.size))} of ${bytes(file.size)}`;
  };
  progress(0);
  const job = upload(one.bucket, one.key, file, progress);
  stop.addEventListener("click", () => job.cancel());
  try {
    await job.done;
    progress(file.size);
    state.textContent = bytes(file.size);
  } catch (error) {
    state.textContent = error.cancelled ? "cancelled" : error.message;
    bar.classList.add("full");
    one.row.classList.add("failed");
  }
  stop.hidden = true;
  going.delete(one);
  next();
  if (!going.size) window.dispatchEvent(new Event("uploaded"));
}

addEventListener("beforeunload", (event) => {
  if (going.size) event.preventDefault();
});
