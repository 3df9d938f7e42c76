"use strict";

const shelf = { category: "", search: "", minPrice: "", maxPrice: "", sort: "id", next: null };
// One key per intended order: pressing twice, or again after a lost answer, orders once.
let orderKey = null;

function card(product) {
  const button = element("button", { type: "button", className: "main", textContent: "Add", disabled: product.stock < 1 });
  button.setAttribute("aria-label", "Add " + product.name + " to the cart");
  button.addEventListener("click", attempt(async () => {
    await setQuantity(product.id, Math.min((cart.get(product.id) || 0) + 1, 100));
    notice(product.name + " is in your cart.");
  }));
  const few = product.stock < 20;
  const left = product.stock < 1 ? "sold out" : few ? "only " + product.stock + " left" : "in stock";
  const picture = element("div", { className: "picture " + product.category }, icon(product.category));
  // Neighbours of one category differ a little.
  picture.style.setProperty("--shift", (product.id * 29) % 50 - 25);
  return element("li", {},
    picture,
    element("div", { className: "text" },
      element("h3", { textContent: product.name }),
      element("p", { textContent: product.description }),
      element("div", { className: "offer" },
        element("span", { className: "price", textContent: money(product.priceMinor) },
          element("span", { className: few ? "left few" : "left", textContent: left })),
        button)));
}

// Answers can overtake each other while somebody types; only the last question counts.
let asked = 0;
const showProducts = attempt(async (more = false) => {
  const query = new URLSearchParams({ limit: "24", sort: shelf.sort });
  for (const name of ["category", "search"]) if (shelf[name]) query.set(name, shelf[name]);
  for (const name of ["minPrice", "maxPrice"]) if (shelf[name] !== "") query.set(name, String(Math.round(shelf[name] * 100)));
  if (more && shelf.next) query.set("cursor", shelf.next);
  const mine = ++asked;
  const { body } = await call("/api/products?" + query);
  if (mine !== asked) return;
  const cards = body.items.map(card);
  if (more) byId("products").append(...cards);
  else byId("products").replaceChildren(...cards);
  byId("products").setAttribute("aria-busy", "false");
  shelf.next = body.nextCursor;
  byId("more").hidden = !body.nextCursor;
  if (!more && !body.items.length) notice("Nothing found. Try another word or price.");
});

const showCategories = attempt(async () => {
  const { body } = await call("/api/categories");
  const buttons = ["", ...body.items.map((category) => category.name)].map((name) => {
    const button = element("button", { type: "button", textContent: name || "everything" });
    button.setAttribute("aria-pressed", String(name === shelf.category));
    button.addEventListener("click", () => {
      shelf.category = name;
      notice("");
      for (const other of byId("categories").children) other.setAttribute("aria-pressed", String(other === button));
      showProducts();
    });
    return button;
  });
  byId("categories").replaceChildren(...buttons);
});

// Pieces by product, as the shop last said.
let cart = new Map();

async function setQuantity(id, quantity) {
  const path = "/api/cart/items/" + id;
  const { body } = await call(path, quantity > 0 ? withJson("PUT", { quantity }) : { method: "DELETE" });
  orderKey = null;
  showCart(body);
}

function stepper(item) {
  const step = (text, change, label) => {
    const button = element("button", { type: "button", textContent: text });
    button.setAttribute("aria-label", label + " of " + item.name);
    button.disabled = item.quantity + change > 100;
    button.addEventListener("click", attempt(() => setQuantity(item.productId, item.quantity + change)));
    return button;
  };
  return element("span", { className: "stepper" },
    step("−", -1, "One less"), element("span", { textContent: item.quantity }), step("+", 1, "One more"));
}

function showCart({ items, totalMinor }) {
  cart = new Map(items.map((item) => [item.productId, item.quantity]));
  byId("cart-items").replaceChildren(...items.map((item) => element("li", {},
    element("span", { textContent: item.name }),
    element("span", { className: "amount", textContent: money(item.quantity * item.unitPriceMinor) }),
    stepper(item),
    element("span", { className: "amount soft", textContent: money(item.unitPriceMinor) + " each" }),
    item.stock < item.quantity ? element("span", { className: "short", textContent: "Only " + item.stock + " left." }) : null)));
  const pieces = items.reduce((sum, item) => sum + item.quantity, 0);
  byId("cart-count").textContent = pieces;
  byId("cart-empty").hidden = pieces > 0;
  byId("cart-total").hidden = byId("buy").hidden = pieces === 0;
  byId("buy").disabled = items.some((item) => item.stock < item.quantity);
  byId("cart-total").replaceChildren(element("span", { textContent: "Total" }), element("span", { textContent: money(totalMinor) }));
}

const readCart = attempt(async () => showCart((await call("/api/cart")).body));

const buy = attempt(async () => {
  orderKey ||= newKey();
  byId("buy").disabled = true;
  try {
    const { body: order } = await call("/api/cart/checkout", withJson("POST", {}, { "idempotency-key": orderKey }));
    orderKey = null;
    notice("Thank you! Order " + order.number + " for " + money(order.totalMinor) + " is placed.");
    byId("notice").append(" ", element("a", { href: "/orders/" + order.number, textContent: "Follow it" }));
    byId("notice").scrollIntoView({ block: "center" });
    await Promise.all([showProducts(), showOrders()]);
  } finally {
    await readCart();
  }
});

const showOrders = attempt(async () => {
  const { body } = await call("/api/orders?limit=5");
  byId("orders-empty").hidden = body.items.length > 0;
  byId("orders").replaceChildren(...body.items.map((order) => element("li", {},
    element("a", { href: "/orders/" + order.number, textContent: order.number }),
    element("span", { className: "amount", textContent: money(order.totalMinor) }),
    element("span", { className: "soft", textContent: moment(order.createdAt) }),
    element("span", { className: "badge " + order.status, textContent: order.status }))));
});

// What is typed counts at once; the shop is asked when the typing pauses.
let typing;
function later() {
  clearTimeout(typing);
  typing = setTimeout(() => { notice(""); showProducts(); }, 200);
}
for (const form of ["search", "filters"]) byId(form).addEventListener("submit", (event) => event.preventDefault());
byId("search-text").addEventListener("input", (event) => { shelf.search = event.target.value.trim(); later(); });
byId("sort").addEventListener("change", (event) => { shelf.sort = event.target.value; showProducts(); });
for (const [id, name] of [["min-price", "minPrice"], ["max-price", "maxPrice"]]) {
  byId(id).addEventListener("input", (event) => {
    if (!event.target.checkValidity()) return;
    shelf[name] = event.target.value;
    later();
  });
}
byId("more").addEventListener("click", () => showProducts(true));
byId("buy").addEventListener("click", buy);
showCategories();
showProducts();
readCart();
showOrders();
