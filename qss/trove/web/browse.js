// Folders and files of a bucket: look, drop, download, share, delete.

import { attempt, confirm, dialog, field, form } from "./dialogs.js";
import { addressOf, bytes, h, number, table, when } from "./dom.js";
import { icon } from "./icons.js";
import { bringBack, details, makeFolder, page, removeFolder, removeMany, removeOne, urlOf, versions } from "./s3.js";
import { share } from "./share.js";
import { dropped, enqueue } from "./uploads.js";

const nameOf = (key, prefix) => key.slice(prefix.length);

// The way here; where one stands is the heading.
function crumbs(bucket, prefix) {
  const steps = prefix.split("/").slice(0, -1);
  const above = prefix ? [bucket, ...steps.slice(0, -1)] : [];
  const links = above.map((text, at) => h("a", { href: addressOf("browse", bucket, steps.slice(0, at).map((each) => `${each}/`).join("")) }, text || "(no name)"));
  return h("nav", { class: "crumb-line", "aria-label": "Where" }, h("ol", { class: "crumbs" },
    h("li", {}, h("a", { href: addressOf("buckets") }, "Buckets")), links.map((link) => h("li", {}, link))));
}

// Asked for first, so that a refusal is told here and not saved as a file.
function download(bucket, key, version) {
  return attempt(async () => {
    if (!version) await details(bucket, key);
    const link = h("a", { href: urlOf(bucket, key, version ? { versionId: version } : {}), download: "" });
    document.body.append(link);
    link.click();
    link.remove();
  });
}

const LINES = { "content-length": "Size", "content-type": "Type", "last-modified": "Changed", etag: "ETag", "x-amz-version-id": "Version" };

function facts(found) {
  const shown = Object.entries(LINES).filter(([name]) => found[name]).map(([name, text]) =>
    [text, name === "content-length" ? `${bytes(Number(found[name]))} (${number(Number(found[name]))} bytes)` : found[name].replaceAll('"', "")]);
  const own = Object.entries(found).filter(([name]) => name.startsWith("x-amz-meta-")).map(([name, value]) => [name.slice(11), value]);
  return h("dl", { class: "facts" }, [...shown, ...own].map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

async function versionTable(bucket, key, changed) {
  let found;
  try {
    found = await versions(bucket, key);
  } catch (error) {
    return h("p", { class: "hint" }, error.status === 403 ? "You may not list versions." : error.message);
  }
  const rows = found.map((each) => [
    h("span", {}, when(each.modified), each.latest ? h("span", { class: "badge good" }, "current") : null, each.marker ? h("span", { class: "badge warn" }, "deleted") : null),
    each.marker ? "" : bytes(each.size),
    [
      each.marker ? null : h("button", { type: "button", onclick: () => download(bucket, key, each.id) }, "Download"),
      each.marker || each.latest ? null : h("button", { type: "button", onclick: () => changed(() => bringBack(bucket, key, each.id), "Brought back as the current version.") }, "Bring back"),
      h("button", { type: "button", class: "danger", onclick: () => changed(() => removeOne(bucket, key, each.id), "This version is gone.") }, "Delete"),
    ],
  ]);
  return table("Versions", [{ title: "Version of" }, { title: "Size", class: "num" }, { title: "", class: "acts" }], rows, "There are no versions.");
}

async function sheet(bucket, key, again) {
  const found = await attempt(() => details(bucket, key));
  if (!found) return;
  const list = h("div", {});
  const fill = async () => list.replaceChildren(await versionTable(bucket, key, changed));
  const changed = async (work, done) => {
    await attempt(work, done);
    await fill();
    again();
  };
  const close = h("button", { type: "button", onclick: () => node.close() }, "Close");
  const node = dialog(key.split("/").filter(Boolean).pop() ?? key, h("div", { class: "stack" },
    h("p", { class: "hint code" }, `${bucket}/${key}`), facts(found),
    h("h3", {}, "Versions"), list,
    h("div", { class: "foot" }, close, h("button", { type: "button", onclick: () => share(bucket, key) }, "Share"),
      h("button", { type: "button", class: "main", onclick: () => download(bucket, key) }, "Download"))), { wide: true });
  await fill();
}

function newFolder(bucket, prefix, go) {
  const name = h("input", { name: "name", required: true, maxlength: 255 });
  return form("New folder", field("Name", name), {
    label: "Create",
    work: async (data) => {
      const key = `${prefix}${data.get("name").replace(/\/+$/, "")}/`;
      await makeFolder(bucket, key);
      go("browse", bucket, key);
    },
  });
}

// Rows of the pages loaded so far, and which of them are picked.
class Listing {
  constructor(bucket, prefix, again) {
    Object.assign(this, { bucket, prefix, again, folders: [], files: [], next: null, picked: new Set() });
    this.remove = h("button", { type: "button", class: "danger", hidden: true, onclick: () => this.removePicked() }, "Delete");
    this.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => attempt(() => this.load()) }, "Show more");
    this.rows = h("div", {});
    this.node = h("div", {}, this.rows, this.more);
  }

  async load() {
    const found = await page(this.bucket, { prefix: this.prefix, token: this.next });
    this.folders.push(...found.folders);
    this.files.push(...found.files.filter((each) => each.key !== this.prefix));
    this.next = found.next;
    this.draw();
  }

  pick(key, label) {
    const box = h("input", { type: "checkbox", "aria-label": `Pick ${label}`, checked: this.picked.has(key) });
    box.addEventListener("change", () => {
      if (box.checked) this.picked.add(key);
      else this.picked.delete(key);
      this.tellPicked();
    });
    return box;
  }

  tellPicked() {
    this.remove.hidden = this.picked.size === 0;
    this.remove.textContent = `Delete ${this.picked.size}`;
  }

  draw() {
    const columns = [{ title: "", class: "pick" }, { title: "Name" }, { title: "Size", class: "num" }, { title: "Changed", class: "wide" }, { title: "", class: "acts" }];
    const { bucket, prefix } = this;
    const folders = this.folders.map((key) => {
      const name = nameOf(key, prefix).slice(0, -1);
      return [this.pick(key, name), h("a", { class: "entry", href: addressOf("browse", bucket, key) }, icon("folder"), name || "(no name)"), "", "", ""];
    });
    const files = this.files.map((each) => {
      const name = nameOf(each.key, prefix);
      return [
        this.pick(each.key, name),
        h("button", { type: "button", class: "entry", onclick: () => sheet(bucket, each.key, this.again) }, icon("file"), name),
        bytes(each.size), when(each.modified),
        [h("button", { type: "button", "aria-label": `Share ${name}`, onclick: () => share(bucket, each.key) }, "Share"),
          h("button", { type: "button", "aria-label": `Download ${name}`, onclick: () => download(bucket, each.key) }, "Download")],
      ];
    });
    const empty = h("div", { class: "empty" }, h("strong", {}, "Nothing here yet"), h("span", {}, "Drop files or folders, or choose Upload."));
    const rows = [...folders, ...files];
    this.rows.replaceChildren(rows.length || this.next ? table("Files", columns, rows, "") : empty);
    this.more.hidden = !this.next;
    this.tellPicked();
  }

  async removePicked() {
    const keys = [...this.picked];
    const folders = keys.filter((key) => this.folders.includes(key));
    const text = folders.length ? "Folders go with all that is in them." : "Versions are kept where the bucket has versioning.";
    const what = keys.length === 1 ? `“${nameOf(keys[0], this.prefix)}”` : `these ${keys.length}`;
    const done = await confirm(`Delete ${what}?`, text, "Delete", async () => {
      await removeMany(this.bucket, keys.filter((key) => !folders.includes(key)));
      for (const each of folders) await removeFolder(this.bucket, each);
    });
    if (done) this.again();
  }
}

function dropZone(node, take) {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    node.classList.toggle("over", depth > 0);
  };
  node.addEventListener("dragenter", () => mark(1));
  node.addEventListener("dragleave", () => mark(-1));
  node.addEventListener("dragover", (event) => event.preventDefault());
  node.addEventListener("drop", async (event) => {
    event.preventDefault();
    mark(-Infinity);
    take(await dropped(event.dataTransfer));
  });
  return node;
}

export async function browse({ args: [bucket, prefix = ""], go, again, onLeave }) {
  const listing = new Listing(bucket, prefix, again);
  await listing.load();
  window.addEventListener("uploaded", again);
  onLeave(() => window.removeEventListener("uploaded", again));
  const take = (files) => enqueue(bucket, prefix, files);
  const chosen = h("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files to upload",
    onchange: () => take([...chosen.files].map((file) => ({ file, path: file.name }))) });
  const buttons = [
    listing.remove,
    h("button", { type: "button", onclick: () => newFolder(bucket, prefix, go) }, "New folder"),
    h("a", { class: "button", href: addressOf("settings", bucket) }, "Settings"),
    h("button", { type: "button", class: "main", onclick: () => chosen.click() }, "Upload"), chosen,
  ];
  const heading = prefix ? prefix.split("/").slice(-2)[0] : bucket;
  return [
    crumbs(bucket, prefix),
    h("div", { class: "head" }, h("h1", {}, heading || "(no name)"), h("span", { class: "spring" }), buttons),
    dropZone(h("div", { class: "drop" }, listing.node, h("p", { class: "drop-word", "aria-hidden": "true" }, "Drop to upload here")), take),
  ];
}
