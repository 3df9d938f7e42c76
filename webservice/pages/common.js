// What the pages share. Text from the shop is only ever set as text, never as markup.
const byId = (id) => document.getElementById(id);

const money = (minor) =>
  "Tk " + (minor / 100).toLocaleString("en-IN", { minimumFractionDigits: minor % 100 ? 2 : 0, maximumFractionDigits: 2 });

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", byId("icon-" + name) ? "#icon-" + name : "#icon-other");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

function notice(text, failed = false) {
  byId("notice").textContent = text;
  byId("notice").classList.toggle("failed", failed);
}

async function call(path, options) {
  const response = await fetch(path, options);
  const version = response.headers.get("x-dhakacart-version");
  if (version) byId("version").textContent = version;
  const body = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(body.detail || body.title || "the shop answered " + response.status);
    error.status = response.status;
    error.errors = body.errors || [];
    throw error;
  }
  return { body, headers: response.headers };
}

const withJson = (method, body, headers = {}) => ({
  method,
  headers: { "content-type": "application/json", ...headers },
  body: JSON.stringify(body),
});

// Runs an action of the visitor and tells how it failed, if it does.
const attempt = (action) => async (...given) => {
  try {
    return await action(...given);
  } catch (error) {
    notice("That did not work: " + error.message + ".", true);
    return undefined;
  }
};

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const moment = (text) =>
  new Date(text).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
