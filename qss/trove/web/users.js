// Users, their access keys and their policies. For the administrator.

import { admin } from "./api.js";
import { attempt, confirm, dialog, field, form, jsonEditor, options, secret, tell } from "./dialogs.js";
import { addressOf, h, table, when } from "./dom.js";
import { icon } from "./icons.js";

const pathOf = (...parts) => ["users", ...parts.map(encodeURIComponent)].join("/");
const allow = (Action) => ({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action, Resource: "*" }] });
const READ = ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:ListBucketVersions", "s3:ListAllMyBuckets", "s3:GetBucketLocation"];
const PRESETS = {
  none: ["Nothing yet", null],
  read: ["Read everything", allow(READ)],
  write: ["Read and write everything", allow([...READ, "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"])],
  all: ["Everything, buckets too", allow("s3:*")],
};

const tellKey = (made) => tell("A new access key",
  h("p", {}, "The secret key is shown this once. Keep it now: nobody can show it again."), secret("Access key", made.access_key), secret("Secret key", made.secret_key));

async function make(go) {
  const name = h("input", { name: "name", required: true, maxlength: 64, spellcheck: "false", autocapitalize: "none" });
  const fields = [
    field("Name", name, "Letters, digits and any of _+=,.@-"),
    field("May", options("preset", Object.entries(PRESETS).map(([value, [text]]) => [value, text]), "none"), "A policy to begin with; it can be changed"),
  ];
  let who = "";
  const made = await form("New user", fields, {
    label: "Create",
    work: async (data) => {
      who = data.get("name");
      await admin("users", { method: "POST", body: { name: who } });
      const document = PRESETS[data.get("preset")][1];
      if (document) await admin(pathOf(who, "policies", data.get("preset")), { method: "PUT", body: document });
      return admin(pathOf(who, "keys"), { method: "POST" });
    },
  });
  if (!made) return;
  await tellKey(made);
  go("user", who);
}

export async function users({ go }) {
  const { users: all } = await admin("users");
  const columns = [{ title: "Name" }, { title: "Keys" }, { title: "Policies" }, { title: "Since", class: "wide" }];
  const keys = (each) => `${each.keys.filter((key) => key.enabled).length} of ${each.keys.length} enabled`;
  const rows = all.map((each) => [
    h("a", { class: "entry", href: addressOf("user", each.name) }, icon("user"), each.name),
    each.keys.length ? keys(each) : "none", each.policies.join(", ") || h("span", { class: "badge" }, "none"), when(each.created),
  ]);
  return [
    h("div", { class: "head" }, h("h1", {}, "Users"), h("span", { class: "spring" }), h("button", { type: "button", class: "main", onclick: () => make(go) }, "New user")),
    table("Users", columns, rows, "There are no users but root, the node's own key pair."),
  ];
}

function keysOf(found, again) {
  const change = (work, done) => attempt(work, done).then(again);
  const drop = async (key) => {
    const done = await confirm("Delete this key?", `Requests signed with ${key} are refused from then on.`, "Delete", () => admin(pathOf(found.name, "keys", key), { method: "DELETE" }));
    if (done) again();
  };
  const rows = found.keys.map((each) => [
    h("code", {}, each.access_key),
    h("span", { class: each.enabled ? "badge good" : "badge warn" }, each.enabled ? "enabled" : "disabled"),
    when(each.created),
    [h("button", { type: "button", "aria-label": `${each.enabled ? "Disable" : "Enable"} ${each.access_key}`,
      onclick: () => change(() => admin(pathOf(found.name, "keys", each.access_key), { method: "PUT", body: { enabled: !each.enabled } })) }, each.enabled ? "Disable" : "Enable"),
    h("button", { type: "button", class: "danger", "aria-label": `Delete ${each.access_key}`, onclick: () => drop(each.access_key) }, "Delete")],
  ]);
  const more = async () => {
    const made = await attempt(() => admin(pathOf(found.name, "keys"), { method: "POST" }));
    if (made) await tellKey(made);
    again();
  };
  return h("section", { class: "section" }, h("div", { class: "head" }, h("h2", {}, "Access keys"), h("span", { class: "spring" }), h("button", { type: "button", onclick: more }, "New key")),
    table("Access keys", [{ title: "Key" }, { title: "State" }, { title: "Since", class: "wide" }, { title: "", class: "acts" }], rows, "No key: this user cannot sign anything."));
}

// The dialog stays, with the reason, until the node takes the policy.
async function edit(found, name, again) {
  const value = name ? await attempt(() => admin(pathOf(found.name, "policies", name))) : PRESETS.read[1];
  if (!value) return;
  const title = h("input", { name: "name", value: name ?? "", required: true, maxlength: 64, disabled: Boolean(name), spellcheck: "false" });
  const editor = jsonEditor("Policy", value, (parsed) => {
    if (!title.value) throw new Error("A policy has a name.");
    return admin(pathOf(found.name, "policies", title.value), { method: "PUT", body: parsed });
  });
  const save = async () => {
    if (!(await editor.run())) return;
    node.close();
    again();
  };
  const node = dialog(name ? `Policy ${name}` : "New policy", h("div", {}, field("Name", title), editor.node,
    h("div", { class: "foot" }, h("button", { type: "button", onclick: () => node.close() }, "Cancel"), h("button", { type: "button", class: "main", onclick: save }, "Save"))), { wide: true });
  (name ? editor.area : title).focus();
}

function policiesOf(found, again) {
  const drop = async (name) => {
    const done = await confirm(`Take the policy ${name} away?`, "It holds no longer from the next request on.", "Take away", () => admin(pathOf(found.name, "policies", name), { method: "DELETE" }));
    if (done) again();
  };
  const rows = found.policies.map((each) => [each, [
    h("button", { type: "button", "aria-label": `Edit ${each}`, onclick: () => edit(found, each, again) }, "Edit"),
    h("button", { type: "button", class: "danger", "aria-label": `Remove ${each}`, onclick: () => drop(each) }, "Remove"),
  ]]);
  return h("section", { class: "section" }, h("div", { class: "head" }, h("h2", {}, "Policies"), h("span", { class: "spring" }), h("button", { type: "button", onclick: () => edit(found, null, again) }, "New policy")),
    table("Policies", [{ title: "Name" }, { title: "", class: "acts" }], rows, "No policy: this user may do only what policies of buckets allow."));
}

export async function user({ args: [name], go, again }) {
  const found = await admin(pathOf(name));
  const drop = async () => {
    const done = await confirm(`Delete ${name}?`, "With all keys and policies. What the user stored stays.", "Delete", () => admin(pathOf(name), { method: "DELETE" }));
    if (done) go("users");
  };
  return [
    h("nav", { class: "crumb-line", "aria-label": "Where" }, h("ol", { class: "crumbs" }, h("li", {}, h("a", { href: addressOf("users") }, "Users")))),
    h("div", { class: "head" }, h("h1", {}, name), h("span", { class: "spring" }), h("button", { type: "button", class: "danger", onclick: drop }, "Delete user")),
    h("p", { class: "hint code" }, found.arn),
    keysOf(found, again),
    policiesOf(found, again),
  ];
}
