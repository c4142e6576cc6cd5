// Logging in and out, the cookie, forms of others, and what a token without scopes sees.
import * as t from "./browser.mjs";

const COOKIE = /^pointsman-session-[0-9a-f]{8}$/;

/// A form's fields as the page has them, with some replaced.
async function fieldsOf(page, button, replaced) {
  const form = page.locator("form").filter({ has: page.getByRole("button", { name: button }) }).first();
  const fields = await form.evaluate((form) => [...new FormData(form)]);
  const action = await form.evaluate((form) => form.getAttribute("action") ?? location.pathname);
  const kept = fields.filter(([name]) => !(name in replaced));
  return { action, fields: new URLSearchParams([...kept, ...Object.entries(replaced)]) };
}

/// Sends a form as a browser would, with the cookies of the window.
async function send(page, { action, fields }, headers = {}) {
  const response = await page.request.post(action, {
    headers: { "content-type": "application/x-www-form-urlencoded", origin: t.given.url, ...headers },
    data: fields.toString(),
    maxRedirects: 0,
  });
  return { status: response.status(), text: await response.text(), location: response.headers().location };
}

await t.script(async (browser) => {
  const { tokens, route, run } = t.given;

  // Who has not logged in sees nothing, wherever the link leads, and gets there after the login.
  const page = await t.open(browser);
  for (const path of ["/", "/runs", `/runs/${run}`, `/routes/${route}`, "/record", "/freeze"]) {
    await page.goto(path);
    t.checkEqual(`${path} without a login`, new URL(page.url()).pathname, "/login");
    const text = await page.locator("body").innerText();
    t.check(`${path} without a login shows nothing`, !text.includes(route) && !text.includes(run), text);
  }
  await page.goto(`/runs/${run}?a=b%20c`);
  page.expectsRefusals = true;
  await t.logIn(page, "ann-0123456789abcdee");
  await page.getByRole("alert").waitFor();
  t.check("a wrong token is refused", new URL(page.url()).pathname === "/login", page.url());
  t.check("and stands nowhere in the page", !(await page.content()).includes("0123456789abcde"));
  page.expectsRefusals = false;
  await t.logIn(page, tokens.ann);
  await page.waitForURL(`**/runs/${run}?a=b%20c`);
  t.check("the right token leads to the page that was asked for, also after a wrong one", true);
  t.check("the page says who looks", (await page.getByRole("banner").innerText()).includes("ann"));

  const cookies = await page.context().cookies();
  t.check("one cookie", cookies.length === 1 && COOKIE.test(cookies[0].name), cookies);
  const [{ value, httpOnly, sameSite, secure, path, domain }] = cookies;
  t.checkEqual("its attributes", { httpOnly, sameSite, secure, path, domain }, {
    httpOnly: true, sameSite: "Strict", secure: false, path: "/", domain: "127.0.0.1",
  });
  t.check("scripts do not see it", (await page.evaluate(() => document.cookie)) === "");
  const inside = Buffer.from(value.split(".")[0], "base64url").toString();
  t.check("it does not contain the token", !inside.includes(tokens.ann) && !value.includes(tokens.ann), inside);

  // A login never leads to another host.
  for (const next of ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]) {
    const stranger = await t.open(browser);
    await stranger.goto(`/login?next=${encodeURIComponent(next)}`);
    await t.logIn(stranger, tokens.ann);
    await stranger.getByRole("button", { name: "Log out" }).waitFor();
    t.checkEqual(`next=${next}`, stranger.url(), `${t.given.url}/`);
    t.checkNothingWrong(stranger, `next=${next}`);
    await stranger.context().close();
  }

  // Forms: only with the key of this session, and only from this site.
  const count = async () => (await t.api("ann", "GET", "/api/v2/flips")).body.length;
  const freeze = async () => (await t.api("ann", "GET", "/api/v2/status")).body.freeze;
  await page.goto("/freeze");
  const before = await count();
  const other = await t.open(browser, { as: "bea" });
  await other.goto("/freeze");
  const others_key = await other.locator("input[name=form_key]").first().inputValue();
  const whole = await fieldsOf(page, "Freeze effects too", {});
  t.check("the page's forms have a key", whole.fields.get("form_key").length >= 20, whole.fields.toString());
  for (const [what, replaced, headers] of [
    ["no form key", { form_key: "" }, {}],
    ["a wrong form key", { form_key: "AAAAAAAAAAAAAAAAAAAAAAAA" }, {}],
    ["the form key of somebody else", { form_key: others_key }, {}],
    ["another site's form", {}, { origin: "https://evil.example" }],
    ["a sandboxed form", {}, { origin: "null" }],
  ]) {
    const form = await fieldsOf(page, "Freeze effects too", { to: "effects", ...replaced });
    const answer = await send(page, form, headers);
    t.checkEqual(`${what}: status`, answer.status, 403);
    t.check(`${what}: it says why`, /not accepted|another site|Origin/i.test(answer.text), answer.text);
  }
  t.checkEqual("nothing was done", [await count(), await freeze()], [before, "no"]);
  const asJson = await page.request.post("/freeze", { headers: { origin: t.given.url }, data: { to: "effects" } });
  t.check("JSON is no form", asJson.status() >= 400, asJson.status());
  t.checkEqual("nothing was done by it", [await count(), await freeze()], [before, "no"]);

  // A token that may only read sees no form that does something, and which scope it would need.
  const reader = await t.open(browser, { as: "eve" });
  for (const [path, scope] of [
    ["/", null], ["/routes/things", "flip"], ["/routes/things/flip", "flip"], ["/freeze", "flip"], ["/runs", null],
    [`/runs/${run}`, "decide"], [`/runs/${t.given.runs.payment}`, "decide"],
    ["/routes/things/differences", null], ["/record", null],
  ]) {
    await reader.goto(path);
    const acting = await reader.locator("main form").evaluateAll((forms) => forms
      .filter((form) => form.method === "post" && !form.action.endsWith("/differences/try")) // it only compares again
      .map((form) => form.outerHTML.slice(0, 200)));
    t.checkEqual(`${path} with a token that may only read: no form that does something`, acting, []);
    const text = await reader.getByRole("main").innerText();
    if (scope) t.check(`${path} says that the scope ${scope} is needed`, text.includes(scope), text);
    t.checkNothingWrong(reader, path);
  }
  // Who makes such a form himself gets nothing done.
  const own_key = await reader.locator("input[name=form_key]").first().inputValue();
  for (const [action, fields] of t.given.forged) {
    const all = new URLSearchParams({ ...fields, form_key: own_key, back: "/" });
    const answer = await send(reader, { action, fields: all });
    t.checkEqual(`${action.replace(run, "RUN")} by a token that may only read: status`, answer.status, 403);
  }
  t.checkEqual("nothing was done by them", [await count(), await freeze()], [before, "no"]);
  t.checkEqual("the run goes on waiting", (await t.runData(run)).status, "waiting_checkpoint");

  // Logged out: the form of the old page is not accepted any more.
  await page.goto("/freeze");
  const old = await fieldsOf(page, "Freeze effects too", {});
  old.fields.set("to", "effects");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Your token").waitFor();
  const answer = await send(page, old);
  t.check("a form of before the log-out does nothing", [303, 403].includes(answer.status), answer);
  t.checkEqual("no freeze", await freeze(), "no");
  await page.goto("/runs");
  t.checkEqual("logged out", new URL(page.url()).pathname, "/login");

  // With the right key the same form is carried out: the refusals above were not about something else.
  const again = await t.open(browser, { as: "bea" });
  await again.goto("/freeze");
  const right = await fieldsOf(again, "Freeze effects too", { to: "instances" });
  t.checkEqual("the right key: status", (await send(again, right)).status, 303);
  t.checkEqual("the right key: done", await freeze(), "instances");
  await t.api("ann", "POST", "/api/v2/freeze", { on: false });
  for (const each of [page, other, reader, again]) t.checkNothingWrong(each, "access");
});
