// The shop's pages in a real browser: a customer buys, an administrator sees to it. Starts a backend and a frontend
// of its own. Usage: node tests/pages/pages.mjs target/debug/shop [directory for screenshots [png]]

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBrowser } from "./browser.mjs";

const [shop = "target/debug/shop", pictures, format = "jpg"] = process.argv.slice(2);
if (pictures) mkdirSync(pictures, { recursive: true });
const directory = mkdtempSync(join(tmpdir(), "shop-"));
const keys = join(directory, "keys");
writeFileSync(keys, "k1 " + randomBytes(32).toString("base64url") + "\n");

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});
const children = [];
function start(role, port, settings) {
  const env = { BIND_ADDRESS: "127.0.0.1", PORT: String(port), SHOP_VERSION: "v1.4.0", DRAIN_SECONDS: "0", RUST_LOG: "warn", ...settings };
  children.push(spawn(shop, [role], { env, stdio: ["ignore", "inherit", "inherit"] }));
}
const backend = await freePort();
const frontend = await freePort();
start("api", backend, { ADMIN_KEYS_FILE: keys });
start("web", frontend, { API_URL: `http://127.0.0.1:${backend}` });
const site = `http://127.0.0.1:${frontend}`;
const token = execFileSync(shop, ["token", "farida"], { env: { ADMIN_KEYS_FILE: keys } }).toString().trim();

async function ready() {
  const deadline = Date.now() + 20000;
  while (Date.now() < deadline) {
    if (await fetch(site + "/ready").then((answer) => answer.ok, () => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("the shop is not ready");
}

const PHONE = [390, 844, true];
const DESKTOP = [1280, 800, false];
const browser = await openBrowser();
const { click, evaluate, until } = browser;
const text = (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)}).innerText`);
const count = (selector) => `document.querySelectorAll(${JSON.stringify(selector)}).length`;

// What must hold of every page at every size.
async function inspect(name, size) {
  await browser.size(...size);
  const wide = await evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
  assert.ok(wide <= 0, `${name} can be scrolled sideways by ${wide} px at ${size[0]} px`);
  assert.deepEqual(await browser.unnamed(), [], `${name}: unnamed controls`);
  if (pictures) await browser.screenshot(join(pictures, `${name}-${size[2] ? "phone" : "desktop"}.${format}`));
}

try {
  await ready();
  await browser.size(...DESKTOP);
  await browser.goto(site + "/");
  await until("products are shown", `${count("#products li")} === 24`);
  await click("#more");
  await until("all products are shown", `${count("#products li")} === 28`);

  await browser.type("#search-text", "saree");
  await until("the search narrows", `${count("#products li")} === 3`);
  await evaluate(`document.querySelector("#search-text").value = ""; document.querySelector("#search-text").dispatchEvent(new Event("input"))`);
  await browser.type("#max-price", "150");
  await until("the price narrows", `[...document.querySelectorAll("#products h3")].map((h) => h.innerText).join() === "Panch Phoron, 200 g"`);
  await evaluate(`document.querySelector("#max-price").value = ""; document.querySelector("#max-price").dispatchEvent(new Event("input"))`);
  await evaluate(`document.querySelector("#sort").value = "-price"; document.querySelector("#sort").dispatchEvent(new Event("change"))`);
  await until("the dearest is first", `document.querySelector("#products h3").innerText === "Dhakai Jamdani Saree"`);
  await evaluate(`document.querySelector("#sort").value = "id"; document.querySelector("#sort").dispatchEvent(new Event("change"))`);
  await until("the list is back", `${count("#products li")} === 24`);

  await click("#products li:nth-child(1) button");
  await until("the first piece is in the cart", `document.querySelector("#cart-count").innerText === "1"`);
  await click("#products li:nth-child(2) button");
  await until("the second piece is in the cart", `document.querySelector("#cart-count").innerText === "2"`);
  await click("#cart-items li:nth-child(2) .stepper button:last-child");
  await until("the third piece is in the cart", `document.querySelector("#cart-count").innerText === "3"`);
  assert.match(await text("#cart-total"), /Tk 16,200/);
  await evaluate("document.activeElement.blur()");
  for (const size of [DESKTOP, PHONE]) await inspect("storefront", size);

  await browser.size(...DESKTOP);
  await click("#buy");
  await until("the order is placed", `document.querySelector("#notice a")`);
  await until("the cart is empty", `document.querySelector("#cart-count").innerText === "0"`);
  await until("the order is listed", `${count("#orders li")} === 1`);
  const order = await evaluate(`document.querySelector("#notice a").href`);
  const number = order.split("/").pop();

  // Another one, which the customer cancels.
  await click("#products li:nth-child(3) button");
  await until("a piece is in the cart", `document.querySelector("#cart-count").innerText === "1"`);
  await click("#buy");
  await until("the second order is listed", `${count("#orders li")} === 2`);
  await browser.goto(await evaluate(`document.querySelector("#orders a").href`));
  await until("the order can be cancelled", `!document.querySelector("#cancel").hidden`);
  await click("#cancel");
  await until("the order is cancelled", `document.querySelector("#placed .cancelled") && document.querySelector("#cancel").hidden`);

  await browser.goto(site + "/dashboard");
  await until("a token is asked for", `!document.querySelector("#enter").hidden`);
  await inspect("sign-in", PHONE);
  await browser.size(...DESKTOP);
  const before = browser.errors.length;
  await browser.type("#token", "not.a.token");
  await click("#enter button");
  await until("a wrong token is refused", `document.querySelector("#notice.failed")`);
  // The browser logs the 401 as an error, which it is meant to be.
  browser.errors.splice(before);
  await browser.type("#token", token);
  await click("#enter button");
  await until("the board is shown", `${count("#orders li")} === 2 && ${count("#stock tr")} === 10`);
  assert.match(await text("#tiles"), /Tk 16,200/);
  await click("#orders li:last-child .act button");
  await until("the order is paid", `document.querySelector("#orders li:last-child .badge").innerText.toLowerCase() === "paid"`);

  await browser.type("#find", "Lamp");
  await until("the product is found", `${count("#stock tr")} === 1`);
  await click("#stock button");
  await until("the editor is open", `document.querySelector("#editor").open && document.querySelector("[name=stock]").value === "45"`);
  if (pictures) await browser.screenshot(join(pictures, `editor-desktop.${format}`));
  await evaluate(`document.querySelector("[name=stock]").value = "12"`);
  await click("#product button[type=submit]");
  await until("the stock is changed", `document.querySelector("#stock .scarce")?.innerText === "12"`);
  await until("both changes are in the audit log", `${count("#audit li")} === 2`);
  await evaluate(`document.querySelector("#find").value = ""; document.querySelector("#find").dispatchEvent(new Event("input"))`);
  await until("all products are listed", `${count("#stock tr")} === 10`);
  await evaluate("document.activeElement.blur(); scrollTo(0, 0)");
  for (const size of [DESKTOP, PHONE]) await inspect("dashboard", size);

  await browser.size(...DESKTOP);
  await browser.goto(`${site}/orders/${number}`);
  await until("the order is shown", `document.querySelector("#steps [aria-current]")?.innerText.toLowerCase() === "paid"`);
  for (const size of [DESKTOP, PHONE]) await inspect("order", size);
  await browser.dark(true);
  await browser.goto(site + "/");
  await until("products are shown", `${count("#products li")} === 24`);
  await inspect("storefront-dark", DESKTOP);
  assert.deepEqual(browser.errors, []);
  console.log("the pages work: browse, search, cart, checkout, order status, dashboard; on a desktop and on a phone");
} finally {
  await browser.close();
  for (const child of children) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}
// Connections of fetch are kept for a while and would hold the program.
process.exit();
