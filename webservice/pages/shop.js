"use strict";

const byId = (id) => document.getElementById(id);
const money = (minor) => "Tk " + (minor / 100).toLocaleString("en-IN", { minimumFractionDigits: minor % 100 ? 2 : 0 });

const shelf = { category: "", search: "", next: null };
let cart = readCart();
// One key per intended order: pressing twice, or again after a lost answer, orders once.
let orderKey = null;

function readCart() {
  try {
    const saved = JSON.parse(localStorage.getItem("cart") || "[]");
    return new Map(saved.filter((line) => Number.isInteger(line.id) && line.quantity > 0).map((line) => [line.id, line]));
  } catch {
    return new Map();
  }
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function notice(text, failed = false) {
  byId("notice").textContent = text;
  byId("notice").classList.toggle("failed", failed);
}

async function call(path, options) {
  const response = await fetch(path, options);
  byId("version").textContent = response.headers.get("x-dhakacart-version") || "";
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || body.title || "The shop answered " + response.status);
  return body;
}

function attempt(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      notice("That did not work: " + error.message, true);
    }
  };
}

function card(product) {
  const button = element("button", { type: "button", className: "main", textContent: "Add", disabled: product.stock < 1 });
  button.setAttribute("aria-label", "Add " + product.name + " to the cart");
  button.addEventListener("click", () => add(product));
  const picture = element("div", { className: "picture " + product.category, textContent: product.name.slice(0, 1) });
  picture.setAttribute("aria-hidden", "true");
  const left = product.stock < 1 ? "sold out" : product.stock < 20 ? "only " + product.stock + " left" : "in stock";
  return element("li", {},
    picture,
    element("div", { className: "text" },
      element("h3", { textContent: product.name }),
      element("p", { textContent: product.description }),
      element("div", { className: "buy" },
        element("span", { className: "price", textContent: money(product.priceMinor) }, element("span", { className: "left", textContent: left })),
        button)));
}

const showProducts = attempt(async (more = false) => {
  const query = new URLSearchParams({ limit: "24" });
  if (shelf.category) query.set("category", shelf.category);
  if (shelf.search) query.set("search", shelf.search);
  if (more && shelf.next) query.set("cursor", shelf.next);
  const page = await call("/api/products?" + query);
  if (!more) byId("products").replaceChildren();
  byId("products").append(...page.items.map(card));
  shelf.next = page.nextCursor;
  byId("more").hidden = !page.nextCursor;
  if (!more) notice(page.items.length ? "" : "Nothing found. Try another word.");
});

const showCategories = attempt(async () => {
  const { items } = await call("/api/categories");
  const buttons = ["", ...items.map((category) => category.name)].map((name) => {
    const button = element("button", { type: "button", textContent: name || "everything" });
    button.setAttribute("aria-pressed", String(name === shelf.category));
    button.addEventListener("click", () => {
      shelf.category = name;
      for (const other of byId("categories").children) other.setAttribute("aria-pressed", String(other === button));
      showProducts();
    });
    return button;
  });
  byId("categories").replaceChildren(...buttons);
});

function add(product) {
  const line = cart.get(product.id) || { id: product.id, name: product.name, priceMinor: product.priceMinor, quantity: 0 };
  line.quantity = Math.min(line.quantity + 1, 100);
  cart.set(product.id, line);
  notice(product.name + " is in your cart.");
  showCart();
}

function showCart() {
  orderKey = null;
  const lines = [...cart.values()];
  localStorage.setItem("cart", JSON.stringify(lines));
  byId("cart-items").replaceChildren(...lines.map((line) => {
    const remove = element("button", { type: "button", textContent: "Remove" });
    remove.setAttribute("aria-label", "Remove " + line.name);
    remove.addEventListener("click", () => { cart.delete(line.id); showCart(); });
    return element("li", {},
      element("span", { textContent: line.quantity + " × " + line.name }),
      element("span", { textContent: money(line.quantity * line.priceMinor) }),
      remove);
  }));
  const pieces = lines.reduce((sum, line) => sum + line.quantity, 0);
  const total = lines.reduce((sum, line) => sum + line.quantity * line.priceMinor, 0);
  byId("cart-count").textContent = pieces;
  byId("cart-empty").hidden = pieces > 0;
  byId("cart-total").hidden = byId("buy").hidden = pieces === 0;
  byId("cart-total").replaceChildren(element("span", { textContent: "Total" }), element("span", { textContent: money(total) }));
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const buy = attempt(async () => {
  orderKey ||= newKey();
  const items = [...cart.values()].map((line) => ({ productId: line.id, quantity: line.quantity }));
  byId("buy").disabled = true;
  try {
    const order = await call("/api/orders", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": orderKey },
      body: JSON.stringify({ items }),
    });
    cart = new Map();
    showCart();
    await showProducts();
    await showOrders();
    notice("Thank you! Order " + order.number + " for " + money(order.totalMinor) + " is placed.");
  } finally {
    byId("buy").disabled = false;
  }
});

const showOrders = attempt(async () => {
  const { items } = await call("/api/orders?limit=5");
  byId("orders-empty").hidden = items.length > 0;
  byId("orders").replaceChildren(...items.map((order) => element("li", {},
    element("span", { textContent: order.number }),
    element("span", { textContent: money(order.totalMinor) }),
    element("span", { className: "soft", textContent: order.status }))));
});

byId("search").addEventListener("submit", (event) => event.preventDefault());
let typing;
byId("search-text").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => { shelf.search = event.target.value.trim(); showProducts(); }, 200);
});
byId("more").addEventListener("click", () => showProducts(true));
byId("buy").addEventListener("click", buy);
showCart();
showCategories();
showProducts();
showOrders();
