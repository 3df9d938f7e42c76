"use strict";

const number = decodeURIComponent(location.pathname.split("/").filter(Boolean).pop());
const path = "/api/orders/" + encodeURIComponent(number);
const WAY = ["placed", "paid", "shipped", "delivered"];

function show(order) {
  document.title = order.number + " at DhakaCart";
  byId("title").textContent = "Order " + order.number;
  byId("placed").textContent = "Placed " + moment(order.createdAt) + ". ";
  const cancelled = order.status === "cancelled";
  if (cancelled) byId("placed").append(element("span", { className: "badge cancelled", textContent: "cancelled" }));
  const reached = WAY.indexOf(order.status);
  byId("steps").hidden = cancelled;
  byId("steps").replaceChildren(...WAY.map((step, index) => {
    const item = element("li", { textContent: step, className: index <= reached ? "done" : "" });
    if (index === reached) item.setAttribute("aria-current", "step");
    return item;
  }));
  byId("lines").replaceChildren(...order.items.map((item) => element("li", {},
    element("span", { textContent: item.quantity + " × " + item.name }),
    element("span", { className: "amount", textContent: money(item.quantity * item.unitPriceMinor) }))));
  byId("total").hidden = false;
  byId("total").replaceChildren(element("span", { textContent: "Total" }), element("span", { textContent: money(order.totalMinor) }));
  byId("cancel").hidden = order.status !== "placed";
}

const read = attempt(async () => show((await call(path)).body));

byId("cancel").addEventListener("click", attempt(async () => {
  show((await call(path, withJson("PATCH", { status: "cancelled" }))).body);
  notice("The order is cancelled.");
}));
read();
setInterval(() => { if (!document.hidden && !byId("steps").hidden) read(); }, 10000);
