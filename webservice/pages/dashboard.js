"use strict";

const NEXT = { placed: ["paid", "cancelled"], paid: ["shipped", "cancelled"], shipped: ["delivered"], delivered: [], cancelled: [] };
const VERB = { paid: "Mark paid", shipped: "Mark shipped", delivered: "Mark delivered", cancelled: "Cancel" };
let token = sessionStorage.getItem("token") || "";

const authorized = (options = {}) => ({ ...options, headers: { ...options.headers, authorization: "Bearer " + token } });

async function ask(path, options) {
  try {
    return await call(path, authorized(options));
  } catch (error) {
    if (error.status === 401) leave();
    throw error;
  }
}

function leave() {
  token = "";
  sessionStorage.removeItem("token");
  byId("board").hidden = byId("leave").hidden = true;
  byId("enter").hidden = false;
  byId("who").textContent = "";
}

function tile(label, value, more, bad = false) {
  return element("li", { className: bad ? "bad" : "" },
    element("span", { className: "label", textContent: label }),
    element("span", { className: "value", textContent: value }),
    element("span", { className: "more", textContent: more }));
}

function uptime(since) {
  const minutes = Math.floor((Date.now() - new Date(since)) / 60000);
  return minutes < 60 ? minutes + " min" : minutes < 2880 ? Math.floor(minutes / 60) + " h" : Math.floor(minutes / 1440) + " days";
}

async function showSummary() {
  const { body: { administrator, sales, lowStock, instance } } = await ask("/api/admin/summary");
  const share = instance.requests ? (100 * instance.failedRequests) / instance.requests : 0;
  const orders = Object.values(sales.ordersByStatus).reduce((sum, count) => sum + count, 0);
  const scarce = lowStock.filter((product) => product.stock < 20).length;
  const { p50, p95, p99 } = instance.latencyMilliseconds;
  byId("who").textContent = administrator;
  byId("tiles").replaceChildren(
    tile("Revenue", money(sales.revenueMinor), "without cancelled orders"),
    tile("Orders", orders.toLocaleString("en-IN"), sales.ordersByStatus.placed + " to be paid, " + sales.ordersByStatus.paid + " to ship"),
    tile("Nearly sold out", scarce === 5 ? "5 or more" : String(scarce), lowStock.length ? lowStock[0].name + ": " + lowStock[0].stock : "", scarce > 0),
    tile("Errors", share.toFixed(2) + " %", "of " + instance.requests.toLocaleString("en-IN") + " API requests", share >= 1),
    tile("p95", p95 + " ms", "p50 " + p50 + ", p99 " + p99 + " ms", p95 > 200),
    tile("Instance", instance.version, "up " + uptime(instance.startedAt) + ", " + instance.databaseConnections.used + "/" + instance.databaseConnections.most + " connections", instance.draining));
  const most = Math.max(...sales.bestSellers.map((item) => item.quantity), 1);
  byId("no-best").hidden = sales.bestSellers.length > 0;
  byId("best").replaceChildren(...sales.bestSellers.map((item) => {
    const meter = element("meter", { min: 0, max: most, value: item.quantity });
    meter.setAttribute("aria-hidden", "true");
    return element("li", {}, element("span", { textContent: item.name }),
      element("span", { className: "amount", textContent: item.quantity + " · " + money(item.revenueMinor) }), meter);
  }));
}

let nextOrders = null;
async function showOrders(more = false) {
  const query = new URLSearchParams({ limit: "8" });
  if (byId("status").value) query.set("status", byId("status").value);
  if (more && nextOrders) query.set("cursor", nextOrders);
  const { body } = await ask("/api/admin/orders?" + query);
  const rows = body.items.map((order) => element("li", {},
    element("span", { className: "number", textContent: order.number }),
    element("span", { className: "badge " + order.status, textContent: order.status }),
    element("span", { className: "amount", textContent: money(order.totalMinor) }),
    element("span", { className: "wide", textContent: moment(order.createdAt) + ": " + order.items.map((item) => item.quantity + " × " + item.name).join(", ") }),
    NEXT[order.status].length ? element("span", { className: "act" }, ...NEXT[order.status].map((status) => {
      const button = element("button", { type: "button", className: status === "cancelled" ? "plain stop" : "plain", textContent: VERB[status] });
      button.setAttribute("aria-label", VERB[status] + ": order " + order.number);
      button.addEventListener("click", attempt(async () => {
        await ask("/api/orders/" + order.number, withJson("PATCH", { status }));
        await refresh();
      }));
      return button;
    })) : null));
  if (more) byId("orders").append(...rows);
  else byId("orders").replaceChildren(...rows);
  nextOrders = body.nextCursor;
  byId("more-orders").hidden = !body.nextCursor;
  byId("no-orders").hidden = byId("orders").children.length > 0;
}

async function showAudit() {
  const { body } = await ask("/api/admin/audit?limit=20");
  byId("no-audit").hidden = body.items.length > 0;
  byId("audit").replaceChildren(...body.items.map((record) => element("li", {},
    element("span", { textContent: record.actor + ", " + record.action + " " + record.target + (record.detail.status ? ": " + record.detail.status : "") }),
    element("span", { className: "soft", textContent: moment(record.at) }))));
}

let nextStock = null;
async function showStock(more = false) {
  const query = new URLSearchParams({ limit: "10" });
  const search = byId("find").value.trim();
  if (search) query.set("search", search);
  if (more && nextStock) query.set("cursor", nextStock);
  const { body } = await ask("/api/products?" + query);
  const rows = body.items.map((product) => {
    const change = element("button", { type: "button", className: "plain", textContent: "Edit" });
    change.setAttribute("aria-label", "Edit " + product.name);
    change.addEventListener("click", attempt(() => edit(product.id)));
    return element("tr", {},
      element("td", { textContent: product.name }), element("td", { textContent: product.category, className: "soft" }),
      element("td", { textContent: money(product.priceMinor), className: "amount" }),
      element("td", { textContent: product.stock, className: product.stock < 20 ? "amount scarce" : "amount" }),
      element("td", {}, change));
  });
  if (more) byId("stock").append(...rows);
  else byId("stock").replaceChildren(...rows);
  nextStock = body.nextCursor;
  byId("more-stock").hidden = !body.nextCursor;
}

// What is being edited: its identifier and the state it had, so that nobody's change is overwritten unseen.
let editing = { id: null, tag: null };
async function edit(id) {
  const fields = byId("product").elements;
  byId("product").reset();
  byId("editor-problem").textContent = "";
  editing = { id, tag: null };
  if (id) {
    const { body, headers } = await ask("/api/products/" + id, { cache: "no-store" });
    editing.tag = headers.get("etag");
    fields.name.value = body.name;
    fields.description.value = body.description;
    fields.price.value = body.priceMinor / 100;
    fields.stock.value = body.stock;
    fields.category.value = body.category;
  }
  byId("editor-title").textContent = id ? "Edit product " + id : "New product";
  byId("remove").hidden = !id;
  byId("editor").showModal();
}

async function save(send) {
  try {
    await send(editing.tag ? { "if-match": editing.tag } : {});
    byId("editor").close();
    await refresh();
    await showStock();
  } catch (error) {
    const fields = error.errors.map((one) => one.field + ": " + one.detail).join("; ");
    byId("editor-problem").textContent = error.status === 412
      ? "Somebody changed or bought it meanwhile. Close and open it again." : fields || error.message;
  }
}

byId("product").addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = event.target.elements;
  const body = {
    name: fields.name.value.trim(), description: fields.description.value.replace(/\r\n?/g, "\n"),
    priceMinor: Math.round(Number(fields.price.value) * 100), stock: Number(fields.stock.value), category: fields.category.value,
  };
  save((headers) => ask("/api/products" + (editing.id ? "/" + editing.id : ""), withJson(editing.id ? "PUT" : "POST", body, headers)));
});
byId("remove").addEventListener("click", () => {
  if (confirm("Stop selling this product?")) save((headers) => ask("/api/products/" + editing.id, { method: "DELETE", headers }));
});
byId("dismiss").addEventListener("click", () => byId("editor").close());

const refresh = () => Promise.all([showSummary(), showOrders(), showAudit()]);

const open = attempt(async () => {
  await showSummary();
  byId("enter").hidden = true;
  byId("board").hidden = byId("leave").hidden = false;
  notice("");
  await Promise.all([showOrders(), showAudit(), showStock()]);
});

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  sessionStorage.setItem("token", token);
  open();
});
byId("leave").addEventListener("click", leave);
byId("status").addEventListener("change", attempt(() => showOrders()));
byId("more-orders").addEventListener("click", attempt(() => showOrders(true)));
byId("more-stock").addEventListener("click", attempt(() => showStock(true)));
byId("new").addEventListener("click", attempt(() => edit(null)));
let typing;
byId("find").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(attempt(() => showStock()), 200); });
setInterval(() => {
  // A list that somebody reads further down is left alone.
  if (token && !document.hidden && byId("orders").children.length <= 8) attempt(refresh)();
}, 5000);

if (token) open();
else leave();
