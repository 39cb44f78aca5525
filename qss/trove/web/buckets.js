// The buckets one may see, and making one.

import { admin } from "./api.js";
import { field, form } from "./dialogs.js";
import { addressOf, bytes, h, meter, number, table, when } from "./dom.js";
import { icon } from "./icons.js";
import { buckets as listed, makeBucket } from "./s3.js";

function make(go) {
  const name = h("input", { name: "name", required: true, minlength: 3, maxlength: 63, spellcheck: "false", autocapitalize: "none" });
  return form("New bucket", field("Name", name, "3 to 63 small letters, digits, dots and dashes"), {
    label: "Create",
    work: async (data) => {
      await makeBucket(data.get("name"));
      go("browse", data.get("name"));
    },
  });
}

// Who may not list buckets may know the name of one.
function open(go) {
  const name = h("input", { name: "name", required: true, spellcheck: "false", autocapitalize: "none" });
  return form("Open a bucket by name", field("Name", name), { label: "Open", work: (data) => go("browse", data.get("name")) });
}

function room(each) {
  const most = each.quota?.bytes_max;
  if (most === null || most === undefined) return bytes(each.bytes);
  const text = `${bytes(each.bytes)} of ${bytes(most)}`;
  return h("div", {}, text, meter(`Quota of ${each.name}`, each.bytes, most, text));
}

async function found(session) {
  if (session.is_root) return (await admin("buckets")).buckets;
  try {
    return await listed();
  } catch (error) {
    if (error.status === 403) return null;
    throw error;
  }
}

export async function buckets({ session, go }) {
  const all = await found(session);
  const columns = [{ title: "Name" }, { title: "Created", class: "wide" }];
  if (session.is_root) columns.push({ title: "Objects", class: "num" }, { title: "Size", class: "num" });
  columns.push({ title: "", class: "acts" });
  const rows = (all ?? []).map((each) => [
    h("a", { class: "entry", href: addressOf("browse", each.name) }, icon("bucket"), each.name),
    when(each.created),
    ...(session.is_root ? [number(each.objects), room(each)] : []),
    h("a", { class: "button", href: addressOf("settings", each.name), "aria-label": `Settings of ${each.name}` }, "Settings"),
  ]);
  const none = all === null ? "You may not list buckets; open one whose name you know." : "There is no bucket yet.";
  return [
    h("div", { class: "head" }, h("h1", {}, "Buckets"), h("span", { class: "spring" }),
      session.is_root ? null : h("button", { type: "button", onclick: () => open(go) }, "Open by name"),
      h("button", { type: "button", class: "main", onclick: () => make(go) }, "New bucket")),
    table("Buckets", columns, rows, none),
  ];
}
