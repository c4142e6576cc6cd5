// What the scripts of the page's tests share: a browser, people who log in, and checks.
//
// A script gets its orders as JSON in POINTSMAN_PAGE_TEST: `url` of the admin listener, `tokens` by name, and whatever
// else its test gives. It prints one line of JSON for each thing that it checked, and ends with 1 if one failed.
// Nothing here sleeps: every wait is for a condition, and has a bound.
import { createRequire } from "node:module";
import net from "node:net";
import { isDeepStrictEqual } from "node:util";

const packages = process.env.POINTSMAN_BROWSER_PACKAGES;
if (!packages) throw new Error("POINTSMAN_BROWSER_PACKAGES names the packages that tests/run installs");
const require = createRequire(`${packages}/`);
const { chromium } = require("playwright-core");
const axe = require("axe-core");

/// What the test gave.
export const given = JSON.parse(process.env.POINTSMAN_PAGE_TEST ?? "{}");
/// The longest wait for one condition: generous, since all tests run at once.
export const WAIT_MS_MAX = 45_000;
/// The longest a script may take.
const SCRIPT_MS_MAX = given.script_ms_max ?? 420_000;

let failures = 0;

function report(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/// Reports whether something holds; the script goes on either way.
export function check(what, holds, found) {
  if (holds) return report({ checked: what });
  failures += 1;
  report({ failed: what, found });
}

/// Reports whether two values are equal.
export function checkEqual(what, found, wanted) {
  check(what, isDeepStrictEqual(found, wanted), { found, wanted });
}

/// Polls until `look` returns something true, and returns that. Ends the script with `what` if that takes too long.
export async function until(what, look, wait_ms_max = WAIT_MS_MAX) {
  const end = Date.now() + wait_ms_max;
  let found;
  for (;;) {
    found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${wait_ms_max} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/// Runs the script `body` with a browser, and ends the process.
export async function script(body) {
  const timer = setTimeout(() => {
    report({ failed: `the script ends within ${SCRIPT_MS_MAX} ms` });
    process.exit(1);
  }, SCRIPT_MS_MAX);
  // The sandbox of the browser does not work as root.
  // In containers, /dev/shm may be too small for it. As root it has no sandbox.
  const args = ["--disable-dev-shm-usage", ...(process.getuid() === 0 ? ["--no-sandbox"] : [])];
  const browser = await chromium.launch({ executablePath: process.env.POINTSMAN_CHROMIUM ?? "chromium", args });
  try {
    await body(browser);
  } catch (error) {
    failures += 1;
    report({ failed: error.message, stack: error.stack });
  }
  await browser.close();
  clearTimeout(timer);
  process.exit(failures > 0 ? 1 : 0);
}

/// How a person looks at the page.
export const LOOKS = {
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  forced: { colorScheme: "dark", forcedColors: "active" },
  narrow: { colorScheme: "light", viewport: { width: 320, height: 640 } },
  // A window of 1280 by 1024 pixels at 400 %: so few CSS pixels are left.
  zoomed: { colorScheme: "light", viewport: { width: 320, height: 256 }, deviceScaleFactor: 4 },
  still: { colorScheme: "light", reducedMotion: "reduce" },
};

const states = new Map(); // by name: the cookies of a person who has logged in

/// A new window, of a person who has logged in if `as` names one. `wrong` collects what no page may do.
export async function open(browser, { as, url = given.url, ...look } = {}) {
  const context = await browser.newContext({
    baseURL: url,
    locale: "en-GB",
    timezoneId: "Europe/Zurich",
    viewport: { width: 1280, height: 900 },
    storageState: states.get(`${as} ${url}`),
    ...look,
  });
  context.setDefaultTimeout(WAIT_MS_MAX);
  const page = await context.newPage();
  page.wrong = [];
  page.expectsRefusals = false;
  // Set by a script that cuts requests of the page itself.
  page.cutsRequests = false;
  const note = (what) => page.wrong.push(`${new URL(page.url(), url).pathname}: ${what}`);
  page.on("console", (message) => {
    const is_refusal = page.expectsRefusals && message.text().includes("the server responded with a status of 4");
    const is_cut = page.cutsRequests && message.text().includes("net::ERR_FAILED");
    if (["error", "warning"].includes(message.type()) && !is_refusal && !is_cut) note(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => note(`error of the script: ${error.message}`));
  page.on("dialog", (dialog) => {
    note(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol.startsWith("http") && origin !== new URL(url).origin) note(`asks another host: ${request.url()}`);
  });
  if (as && !states.has(`${as} ${url}`)) {
    await logIn(page, given.tokens[as]);
    states.set(`${as} ${url}`, await context.storageState());
  }
  return page;
}

/// Logs in with a token, on the form that the browser stands at; if it stands nowhere, on the form itself.
export async function logIn(page, token) {
  if (page.url() === "about:blank") await page.goto("/login");
  await page.getByLabel("Your token").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
}

/// Checks that nothing happened in this window that no page may do: errors, violations of the policy, dialogs.
export function checkNothingWrong(page, what) {
  checkEqual(`${what}: no error, no violation of the policy, no dialog`, page.wrong, []);
  page.wrong.length = 0;
}

/// Goes to a path, which has to be answered with this status.
export async function go(page, path, status = 200) {
  page.expectsRefusals = status >= 400;
  const response = await page.goto(path, { waitUntil: "load" });
  checkEqual(`${path}: status`, response.status(), status);
  return response;
}

/// What the page says.
export function textOf(page) {
  return page.getByRole("main").innerText();
}

/// Where the links of the page lead, as whole addresses.
export function linksOf(page) {
  return page.locator("a[href]").evaluateAll((links) => links
    .map((link) => ({ text: link.textContent, href: new URL(link.getAttribute("href"), location).href })));
}

/// The address of a page without what differs between pages of the same kind.
export function pathShape(address) {
  const path = decodeURIComponent(address.pathname).replaceAll(/run_[0-9a-f]+|chk_[^/]+/g, "ID");
  return path.replace(/^\/routes\/[^/]+/, "/routes/ID");
}

/// The violations of the rules of accessibility that a program can find.
export async function accessibilityViolations(page) {
  await page.evaluate(axe.source);
  return page.evaluate(async () => {
    // Beside what is on by default: targets have to be large enough for a finger.
    const { violations } = await window.axe.run(document, {
      resultTypes: ["violations"],
      rules: { "target-size": { enabled: true } },
    });
    return violations.map(({ id, help, nodes }) => ({
      rule: id,
      help,
      nodes: nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 300)} — ${failureSummary}`),
      count: nodes.length,
    }));
  });
}

/// Checks that there are none.
export async function checkAccessible(page, what) {
  checkEqual(`${what}: accessible`, await accessibilityViolations(page), []);
}

/// How many CSS pixels the document is wider than the window, and what makes it so. Tables in regions of their own may
/// be wider.
export async function tooWide(page) {
  return page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    const sticks_out = (element) =>
      element.getBoundingClientRect().right > clientWidth + 1 || element.scrollWidth > clientWidth + 1;
    const is_wide = (element) => sticks_out(element) && !element.closest(".scroll, .skip, svg");
    const wide = scrollWidth > clientWidth ? [...document.body.querySelectorAll("*")].filter(is_wide).reverse() : [];
    return { by: scrollWidth - clientWidth, wide: wide.slice(0, 4).map((element) => element.outerHTML.slice(0, 160)) };
  });
}

/// Checks that nobody has to scroll to the side.
export async function checkNoSideScroll(page, what) {
  const found = await tooWide(page);
  check(`${what}: no scrolling to the side`, found.by <= 0, found);
}

/// Checks that recorded data is text, that its direction marks do not turn around what stands behind it, and that no
/// secret is there.
export async function checkInert(page, what) {
  const found = await page.evaluate(() => {
    const turned = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = texts.nextNode(); node; node = texts.nextNode()) {
      if (!/[\u202a-\u202e\u2066-\u2069]/.test(node.data)) continue;
      let around = node.parentElement;
      while (around && !/isolate|plaintext/.test(getComputedStyle(around).unicodeBidi)) around = around.parentElement;
      const after = document.createRange();
      after.setStartAfter(node);
      after.setEndAfter((around ?? document.body).lastChild);
      if (after.toString().trim() !== "") turned.push((around ?? document.body).outerHTML.slice(0, 400));
    }
    return { planted: window.__planted, turned };
  });
  checkEqual(`${what}: recorded data is inert`, found.planted, undefined);
  checkEqual(`${what}: its direction marks end with it`, found.turned.slice(0, 3), []);
  const secret = given.secret;
  if (secret) check(`${what}: no secret`, !(await page.content()).includes(secret));
}

/// A request to the API by a person's token.
export async function api(as, method, path, body) {
  const response = await fetch(`${given.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${given.tokens[as]}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, body: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : text };
}

const RUN = "/api/v2/orchestrate/run";

/// Starts a run and does not wait for it; returns its id.
export async function startRun(workflow, input = {}) {
  const response = await fetch(`${given.url}${RUN}`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${given.tokens.ann}`,
      "content-type": "application/json",
      prefer: "respond-async",
    },
    body: JSON.stringify({ workflow, input }),
  });
  const { data } = await response.json();
  return data.run_id;
}

/// What the API says of a run.
export async function runData(run) {
  return (await api("ann", "GET", `${RUN}/${run}`)).body.data;
}

/// Waits until a run has a status; returns what the API says of it.
export async function untilStatus(run, status) {
  let data;
  await until(`${run} to be ${status}`, async () => {
    data = await runData(run);
    return data.status === status;
  });
  return data;
}

/// Starts a run and waits until it has a status; returns its id.
export async function startRunUntil(status, workflow, input) {
  const run = await startRun(workflow, input);
  await untilStatus(run, status);
  return run;
}

/// The links of a page that lead to a run. (In addresses, its `_` is encoded.)
export function linkToRun(page, run) {
  return page.locator(`a[href*="${run.replace("run_", "")}"]`).first();
}

/// A connection to the admin listener that a test can cut: everything that the browser sends goes through it.
export class CuttableLink {
  #sockets = new Set();
  #is_cut = false;

  static async open() {
    const link = new CuttableLink();
    const { hostname, port } = new URL(given.url);
    const server = net.createServer((near) => {
      if (link.#is_cut) return near.destroy();
      const far = net.connect(Number(port), hostname);
      for (const [one, other] of [[near, far], [far, near]]) {
        link.#sockets.add(one);
        one.on("error", () => {});
        one.on("close", () => {
          other.destroy();
          link.#sockets.delete(one);
        });
        one.pipe(other);
      }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    server.unref();
    link.url = `http://127.0.0.1:${server.address().port}`;
    return link;
  }

  /// Closes all connections and refuses new ones.
  cut() {
    this.#is_cut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /// Lets connections through again.
  mend() {
    this.#is_cut = false;
  }
}
