// What holds for a bucket: versions, quota, lifecycle, policy.

import { admin } from "./api.js";
import { attempt, confirm, field, jsonEditor, note } from "./dialogs.js";
import { addressOf, bytes, h, parseSize } from "./dom.js";
import { lifecycle, policy, removeBucket, removeLifecycle, removePolicy, setLifecycle, setPolicy, setVersioning, versioning } from "./s3.js";

const card = (title, ...content) => h("section", { class: "card section" }, h("h2", {}, title), content);

// A part that one may not see says so, and the others are there all the same.
async function part(title, work) {
  try {
    return card(title, await work());
  } catch (error) {
    return card(title, h("p", { class: "hint" }, error.status === 403 ? "You may not see this." : error.message));
  }
}

async function versions(bucket, again) {
  const now = await versioning(bucket);
  const to = now === "Enabled" ? "Suspended" : "Enabled";
  const words = { Enabled: "On: what is overwritten or deleted is kept as an older version.", Suspended: "Suspended: older versions are kept, new ones are not made.", "": "Off: what is overwritten or deleted is gone." };
  const turn = async () => {
    await attempt(() => setVersioning(bucket, to), to === "Enabled" ? "Versions are kept from now on." : "No new versions from now on.");
    again();
  };
  return h("div", { class: "line" }, h("p", {}, words[now]), h("button", { type: "button", onclick: turn }, to === "Enabled" ? "Keep versions" : "Suspend"));
}

async function quota(bucket) {
  const found = await admin(`buckets/${encodeURIComponent(bucket)}/quota`);
  const size = h("input", { name: "size", value: found.bytes_max === null ? "" : bytes(found.bytes_max), placeholder: "no limit" });
  const objects = h("input", { name: "objects", type: "number", min: 0, value: found.objects_max ?? "", placeholder: "no limit" });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const save = async (event) => {
    event.preventDefault();
    const most = parseSize(size.value);
    wrong.textContent = Number.isNaN(most) ? "A size is a number and a unit, such as 10 GiB." : "";
    if (wrong.textContent) return;
    const wish = { bytes_max: most, objects_max: objects.value === "" ? null : Number(objects.value) };
    await attempt(() => admin(`buckets/${encodeURIComponent(bucket)}/quota`, { method: "PUT", body: wish }), "The quota holds.");
  };
  return h("form", { onsubmit: save }, h("div", { class: "pair" }, field("Bytes", size, "Such as 10 GiB"), field("Objects", objects, "How many at most")), wrong,
    h("div", { class: "foot" }, h("button", {}, "Save quota")));
}

function documentPart(title, name, { get, set, remove, sample }) {
  return part(title, async () => {
    const editor = jsonEditor(name, await get(), set);
    const example = h("button", { type: "button", class: "quiet", onclick: () => (editor.area.value = JSON.stringify(sample, null, 2)) }, "Example");
    const save = h("button", { type: "button", "aria-label": `Save ${name.toLowerCase()}`, onclick: async () => (await editor.run()) && note("Saved.") }, "Save");
    const clear = h("button", { type: "button", class: "danger", "aria-label": `Remove ${name.toLowerCase()}`, onclick: () => attempt(async () => {
      await remove();
      editor.area.value = "";
    }, "Removed.") }, "Remove");
    return [editor.node, h("div", { class: "foot" }, example, h("span", { class: "spring" }), clear, save)];
  });
}

export async function settings({ session, args: [bucket], go, again }) {
  const drop = async () => {
    const remove = () => (session.is_root ? admin(`buckets/${encodeURIComponent(bucket)}`, { method: "DELETE" }) : removeBucket(bucket));
    if (await confirm(`Delete the bucket ${bucket}?`, "Only an empty bucket can be deleted.", "Delete", remove)) go("buckets");
  };
  const rule = { ID: "old-logs", Status: "Enabled", Filter: { Prefix: "logs/" }, Expiration: { Days: 30 } };
  const allow = { Effect: "Allow", Principal: { AWS: "arn:aws:iam::000000000000:user/alice" }, Action: "s3:GetObject", Resource: `arn:aws:s3:::${bucket}/*` };
  const parts = await Promise.all([
    part("Versions", () => versions(bucket, again)),
    session.is_root ? part("Quota", () => quota(bucket)) : null,
    documentPart("Lifecycle", "Lifecycle rules", { get: () => lifecycle(bucket), set: (value) => setLifecycle(bucket, value), remove: () => removeLifecycle(bucket), sample: { Rules: [rule] } }),
    documentPart("Policy", "Bucket policy", { get: () => policy(bucket), set: (value) => setPolicy(bucket, value), remove: () => removePolicy(bucket), sample: { Version: "2012-10-17", Statement: [allow] } }),
  ]);
  return [
    h("nav", { class: "crumb-line", "aria-label": "Where" }, h("ol", { class: "crumbs" }, h("li", {}, h("a", { href: addressOf("buckets") }, "Buckets")), h("li", {}, h("a", { href: addressOf("browse", bucket) }, bucket)))),
    h("div", { class: "head" }, h("h1", {}, `Settings of ${bucket}`), h("span", { class: "spring" }), h("button", { type: "button", class: "danger", onclick: drop }, "Delete bucket")),
    h("div", { class: "columns" }, parts.filter(Boolean)),
  ];
}
