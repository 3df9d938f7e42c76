// A headless Chromium, spoken to by its DevTools protocol: no dependency besides Node.js 20 or later and a
// Chromium on PATH (Debian: apt-get install chromium).

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
  "--remote-debugging-port=0",
];

// Just enough of RFC 6455 for one text connection: older Node.js has no WebSocket of its own.
function socket(url, onMessage) {
  const { hostname, port, pathname } = new URL(url);
  return new Promise((resolve, reject) => {
    const stream = connect(Number(port), hostname);
    let buffer = Buffer.alloc(0);
    let open = false;
    let parts = [];
    stream.on("error", reject);
    stream.on("connect", () => stream.write(
      `GET ${pathname} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\nSec-WebSocket-Version: 13\r\n\r\n`));
    stream.on("data", (data) => {
      buffer = Buffer.concat([buffer, data]);
      if (!open) {
        const end = buffer.indexOf("\r\n\r\n");
        if (end < 0) return;
        buffer = buffer.subarray(end + 4);
        open = true;
        resolve({ send, close: () => stream.destroy() });
      }
      for (;;) {
        if (buffer.length < 2) return;
        let length = buffer[1] & 127;
        let head = 2;
        if (length === 126) { if (buffer.length < 4) return; length = buffer.readUInt16BE(2); head = 4; }
        else if (length === 127) { if (buffer.length < 10) return; length = Number(buffer.readBigUInt64BE(2)); head = 10; }
        if (buffer.length < head + length) return;
        const last = buffer[0] & 128;
        const kind = buffer[0] & 15;
        if (kind <= 1) parts.push(buffer.subarray(head, head + length));
        buffer = buffer.subarray(head + length);
        if (last && parts.length) { onMessage(Buffer.concat(parts).toString()); parts = []; }
      }
    });
    function send(text) {
      const body = Buffer.from(text);
      const mask = randomBytes(4);
      const head = body.length < 126 ? Buffer.from([129, 128 | body.length])
        : Buffer.concat([Buffer.from([129, 128 | 127]), Buffer.from(BigInt(body.length).toString(16).padStart(16, "0"), "hex")]);
      stream.write(Buffer.concat([head, mask, body.map((byte, index) => byte ^ mask[index & 3])]));
    }
  });
}

export async function openBrowser() {
  const profile = mkdtempSync(join(tmpdir(), "pages-"));
  const child = spawn("chromium", [...FLAGS, `--user-data-dir=${profile}`, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
  const base = await new Promise((resolve, reject) => {
    let said = "";
    child.stderr.on("data", (data) => {
      said += data;
      const found = said.match(/DevTools listening on (ws:\S+)/);
      if (found) resolve(found[1]);
    });
    child.on("exit", () => reject(new Error("Chromium ended: " + said)));
    child.on("error", reject);
  });
  const waiting = new Map();
  const errors = [];
  let id = 0;
  let session;
  const link = await socket(base, (text) => {
    const message = JSON.parse(text);
    if (message.id) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message));
      else resolve(message.result);
    } else if (message.method === "Runtime.exceptionThrown") {
      errors.push(message.params.exceptionDetails.exception?.description ?? message.params.exceptionDetails.text);
    } else if (message.method === "Log.entryAdded" && message.params.entry.level === "error") {
      errors.push(message.params.entry.text + " " + (message.params.entry.url ?? ""));
    }
  });
  const command = (method, params = {}) => new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("Chromium does not answer " + method)), 20000);
    const done = (settle) => (value) => { clearTimeout(late); settle(value); };
    waiting.set(++id, { resolve: done(resolve), reject: done(reject) });
    link.send(JSON.stringify({ id, method, params, sessionId: session }));
  });
  const { targetInfos } = await command("Target.getTargets");
  const { targetId } = targetInfos.find((target) => target.type === "page");
  session = (await command("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  for (const domain of ["Page", "Runtime", "Log", "Accessibility"]) await command(domain + ".enable");

  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await command("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  // Looks until the page says yes; `what` is for the message when it never does.
  const until = async (what, expression) => {
    const deadline = Date.now() + 20000;
    while (Date.now() < deadline) {
      if (await evaluate(expression).catch(() => false)) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    throw new Error(`not within 20 s: ${what}; errors: ${errors.join("; ")}; page: ${await evaluate("document.body.innerText.slice(0, 400)")}`);
  };
  return {
    errors, evaluate, until,
    goto: async (url) => {
      await command("Page.navigate", { url });
      await until("the page " + url, `location.href === ${JSON.stringify(url)} && document.readyState === "complete"`);
    },
    size: (width, height, mobile) =>
      command("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile }),
    dark: (dark) =>
      command("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] }),
    type: async (selector, text) => {
      await evaluate(`document.querySelector(${JSON.stringify(selector)}).focus()`);
      await command("Input.insertText", { text });
    },
    click: (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`),
    // Whatever can be operated but has no name for those who hear the page.
    unnamed: async () => {
      const { nodes } = await command("Accessibility.getFullAXTree");
      const operable = new Set(["button", "link", "textbox", "searchbox", "combobox", "spinbutton", "checkbox"]);
      return nodes.filter((node) => !node.ignored && operable.has(node.role?.value) && !node.name?.value).map((node) => node.role.value);
    },
    screenshot: async (file) => {
      const format = file.endsWith(".png") ? { format: "png" } : { format: "jpeg", quality: 72 };
      const { data } = await command("Page.captureScreenshot", format);
      writeFileSync(file, Buffer.from(data, "base64"));
    },
    close: async () => {
      link.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
        await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5000))]);
      }
      try {
        rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
      } catch (error) {
        // Helpers of a browser that was killed can still write there: what is left is a temporary folder.
        console.error(`${profile} stays behind: ${error.code}`);
      }
    },
  };
}
