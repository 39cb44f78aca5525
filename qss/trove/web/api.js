// What the page asks of its own node. The mark of the session is in memory only: no other page can send it.

const MARK = "x-trove-mark";
let mark = "";

export class Failure extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export function headersFor(method) {
  return method === "GET" || method === "HEAD" ? {} : { [MARK]: mark };
}

// The sentence in an error's body, or its number where there is none.
export function failureOf(status, text) {
  let told = status ? `The node answered ${status}.` : "The node does not answer.";
  try {
    told = JSON.parse(text).error || told;
  } catch {
    // no JSON: the number has to do
  }
  if (status === 401) window.dispatchEvent(new Event("signed-out"));
  return new Failure(status, told);
}

export async function ask(path, { method = "GET", body } = {}) {
  const headers = headersFor(method);
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw failureOf(0, "");
  }
  const text = await answer.text();
  if (!answer.ok) throw failureOf(answer.status, text);
  return text ? JSON.parse(text) : null;
}

export const admin = (path, options) => ask(`admin/${path}`, options);

// A node of another age may lack a part of the API: null then.
export async function adminIfThere(path) {
  try {
    return await admin(path);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function remember(session) {
  mark = session.mark ?? "";
  return session.signed_in ? session : null;
}

export const whoAmI = async () => remember(await ask("session"));

export async function signIn(accessKey, secretKey) {
  return remember(await ask("session", { method: "POST", body: { access_key: accessKey, secret_key: secretKey } }));
}

export async function signOut() {
  await ask("session", { method: "DELETE" });
  remember({});
}
