// S3 as this page speaks it: the session stands for the signature. Bodies are built and read as XML documents.

import { failureOf, headersFor } from "./api.js";

export const PAGE = 200;
const DELETE_MAX = 1000;
const PART_BYTES = 32 * 1024 * 1024;
const PARTS_MAX = 10000;
const TRIES = 3;

// A key is one segment of the path, so that no browser takes dots in it for steps.
export function urlOf(bucket, key = "", query = {}) {
  const path = `/api/s3/${encodeURIComponent(bucket)}${key === "" ? "" : `/${encodeURIComponent(key)}`}`;
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
}

// XMLHttpRequest: it reads XML, and tells how far an upload is.
function start(method, url, { body, headers = {}, onProgress } = {}) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    if (onProgress) request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () => (request.status < 300 ? resolve(request) : reject(failureOf(request.status, request.responseText)));
    request.onerror = () => reject(failureOf(0, ""));
    request.onabort = () => reject(Object.assign(failureOf(0, ""), { cancelled: true }));
    request.open(method, url);
    for (const [name, value] of Object.entries({ ...headersFor(method), ...headers })) request.setRequestHeader(name, value);
    request.send(body);
  });
  return { done, cancel: () => request.abort() };
}

const send = (method, bucket, key, query, options) => start(method, urlOf(bucket, key, query), options).done;
const child = (node, name) => [...node.children].find((each) => each.localName === name);
const all = (node, name) => [...node.children].filter((each) => each.localName === name);
const text = (node, name) => child(node, name)?.textContent ?? "";
const name = (node, tag) => decodeURIComponent(text(node, tag));

async function xml(bucket, key, query) {
  return (await send("GET", bucket, key, query)).responseXML.documentElement;
}

const entry = (node) => ({
  key: name(node, "Key"),
  size: Number(text(node, "Size")),
  modified: text(node, "LastModified"),
  etag: text(node, "ETag").replaceAll('"', ""),
});

// -- buckets
export async function buckets() {
  const root = await xml("", "", {});
  return all(child(root, "Buckets"), "Bucket").map((each) => ({ name: text(each, "Name"), created: text(each, "CreationDate") }));
}

export const makeBucket = (bucket) => send("PUT", bucket, "", {});
export const removeBucket = (bucket) => send("DELETE", bucket, "", {});

// -- objects
export async function page(bucket, { prefix = "", delimiter = "/", token = null, limit = PAGE } = {}) {
  const query = { "list-type": 2, "encoding-type": "url", "max-keys": limit, prefix };
  if (delimiter) query.delimiter = delimiter;
  if (token) query["continuation-token"] = token;
  const root = await xml(bucket, "", query);
  return {
    folders: all(root, "CommonPrefixes").map((each) => name(each, "Prefix")),
    files: all(root, "Contents").map(entry),
    next: text(root, "NextContinuationToken") || null,
  };
}

// Versions of one key, newest first. Keys that only begin like it come behind it.
export async function versions(bucket, key) {
  const found = [];
  let after = {};
  for (;;) {
    const root = await xml(bucket, "", { versions: "", prefix: key, "encoding-type": "url", ...after });
    for (const each of root.children) {
      if (!["Version", "DeleteMarker"].includes(each.localName)) continue;
      const one = entry(each);
      if (one.key !== key) return found;
      found.push({ ...one, id: text(each, "VersionId"), latest: text(each, "IsLatest") === "true", marker: each.localName === "DeleteMarker" });
    }
    if (text(root, "IsTruncated") !== "true") return found;
    after = { "key-marker": name(root, "NextKeyMarker"), "version-id-marker": text(root, "NextVersionIdMarker") };
  }
}

export async function details(bucket, key) {
  const request = await send("HEAD", bucket, key, {});
  const lines = request.getAllResponseHeaders().trim().split("\r\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
  return Object.fromEntries(lines);
}

export const removeOne = (bucket, key, version) => send("DELETE", bucket, key, version ? { versionId: version } : {});

export function bringBack(bucket, key, version) {
  const source = `/${encodeURIComponent(bucket)}/${encodeURIComponent(key)}?versionId=${encodeURIComponent(version)}`;
  return send("PUT", bucket, key, {}, { headers: { "x-amz-copy-source": source } });
}

export const makeFolder = (bucket, key) => send("PUT", bucket, key, {}, { body: "", headers: { "content-type": "application/x-directory" } });

// XML cannot say every character that a key may have: such keys go one by one.
const UNSAYABLE = /[\u0000-\u001f\u007f-\u009f\ufffe\uffff]/;

export async function removeMany(bucket, wanted) {
  const keys = wanted.filter((key) => !UNSAYABLE.test(key));
  for (const key of wanted) if (UNSAYABLE.test(key)) await removeOne(bucket, key);
  for (let at = 0; at < keys.length; at += DELETE_MAX) {
    const objects = keys.slice(at, at + DELETE_MAX).map((key) => ({ Key: key }));
    const answer = await send("POST", bucket, "", { delete: "" }, { body: xmlOf("Delete", { Quiet: true, Object: objects }) });
    const wrong = answer.responseXML ? all(answer.responseXML.documentElement, "Error") : [];
    if (wrong.length) throw failureOf(403, JSON.stringify({ error: `${wrong.length} could not be deleted: ${text(wrong[0], "Message")}` }));
  }
}

// Everything below a prefix, a page at a time.
export async function removeFolder(bucket, prefix) {
  for (;;) {
    const found = await page(bucket, { prefix, delimiter: "", limit: DELETE_MAX });
    if (!found.files.length) return;
    await removeMany(bucket, found.files.map((each) => each.key));
    if (!found.next) return;
  }
}

// -- uploads: one put, or in parts what is big; a part that fails is sent again
export function upload(bucket, key, file, onProgress) {
  const job = { cancel: () => {}, cancelled: false };
  const run = (method, query, options) => {
    if (job.cancelled) throw Object.assign(failureOf(0, ""), { cancelled: true });
    const started = start(method, urlOf(bucket, key, query), options);
    job.cancel = () => {
      job.cancelled = true;
      started.cancel();
    };
    return started.done;
  };
  job.done = file.size <= PART_BYTES ? run("PUT", {}, { body: file, headers: kindOf(file), onProgress }) : inParts(bucket, key, file, run, onProgress);
  return job;
}

const kindOf = (file) => (file.type ? { "content-type": file.type } : {});

async function inParts(bucket, key, file, run, onProgress) {
  const started = await run("POST", { uploads: "" }, { headers: kindOf(file) });
  const uploadId = text(started.responseXML.documentElement, "UploadId");
  const size = Math.max(PART_BYTES, Math.ceil(file.size / PARTS_MAX));
  const parts = [];
  try {
    for (let at = 0; at < file.size; at += size) {
      const number = parts.length + 1;
      const told = (loaded) => onProgress(at + loaded);
      const options = { body: file.slice(at, at + size), onProgress: told };
      const sent = await patiently(() => run("PUT", { partNumber: number, uploadId }, options));
      parts.push({ PartNumber: number, ETag: sent.getResponseHeader("etag") });
    }
    await run("POST", { uploadId }, { body: xmlOf("CompleteMultipartUpload", { Part: parts }) });
  } catch (error) {
    send("DELETE", bucket, key, { uploadId }).catch(() => {}); // else the node clears it away by itself
    throw error;
  }
}

async function patiently(work) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      if (tries === TRIES || error.cancelled || (error.status >= 400 && error.status < 500)) throw error;
    }
  }
}

// -- configuration of a bucket
async function orNull(work) {
  try {
    return await work();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

export async function versioning(bucket) {
  return text(await xml(bucket, "", { versioning: "" }), "Status");
}

export function setVersioning(bucket, status) {
  return send("PUT", bucket, "", { versioning: "" }, { body: xmlOf("VersioningConfiguration", { Status: status }) });
}

export const policy = (bucket) => orNull(async () => JSON.parse((await send("GET", bucket, "", { policy: "" })).responseText));
export const setPolicy = (bucket, value) => send("PUT", bucket, "", { policy: "" }, { body: JSON.stringify(value) });
export const removePolicy = (bucket) => send("DELETE", bucket, "", { policy: "" });
export const lifecycle = (bucket) => orNull(async () => jsonOf(await xml(bucket, "", { lifecycle: "" })));
export const removeLifecycle = (bucket) => send("DELETE", bucket, "", { lifecycle: "" });

export function setLifecycle(bucket, value) {
  return send("PUT", bucket, "", { lifecycle: "" }, { body: xmlOf("LifecycleConfiguration", value) });
}

// -- XML ↔ the JSON that AWS's command line has for it: lists have names in the plural there
const PLURALS = { Rules: "Rule", Tags: "Tag", Transitions: "Transition", NoncurrentVersionTransitions: "NoncurrentVersionTransition" };
const SINGULARS = Object.fromEntries(Object.entries(PLURALS).map(([many, one]) => [one, many]));
const NUMBERS = /^(Days|NoncurrentDays|NewerNoncurrentVersions|DaysAfterInitiation|ObjectSize(Greater|Less)Than)$/;

export function xmlOf(root, value) {
  const made = document.implementation.createDocument(null, root);
  append(made, made.documentElement, value);
  return new XMLSerializer().serializeToString(made);
}

function append(made, parent, value) {
  for (const [key, each] of Object.entries(value)) {
    for (const one of Array.isArray(each) ? each : [each]) {
      const node = parent.appendChild(made.createElement(Array.isArray(each) ? PLURALS[key] ?? key : key));
      if (one !== null && typeof one === "object") append(made, node, one);
      else node.textContent = String(one);
    }
  }
}

export function jsonOf(node) {
  if (!node.children.length && node.localName !== "Filter") {
    const value = node.textContent;
    if (node.localName === "ExpiredObjectDeleteMarker") return value === "true";
    return NUMBERS.test(node.localName) ? Number(value) : value;
  }
  const found = {};
  for (const each of node.children) {
    const many = SINGULARS[each.localName];
    const alone = each.localName === "Tag" && node.localName === "Filter";
    if (many && !alone) (found[many] ??= []).push(jsonOf(each));
    else found[each.localName] = jsonOf(each);
  }
  return found;
}
