// A route moved through the page: its gate first, then the reason, then the button; by force only the longer way. Then
// the kill switch. After each, what the API says.
import * as t from "./browser.mjs";

const ROUTE = "/api/v2/routes/same";

async function row() {
  return (await t.api("ann", "GET", ROUTE)).body.row;
}

async function newestFlip() {
  return (await t.api("ann", "GET", "/api/v2/flips?limit=1")).body[0];
}

async function freeze() {
  return (await t.api("ann", "GET", "/api/v2/status")).body.freeze;
}

/// Sends requests of as many callers through the proxy.
async function request(count) {
  for (let caller = 0; caller < count; caller += 1) {
    const headers = { "content-type": "application/json", "x-tenant": `tenant-${caller}` };
    await fetch(`${t.given.proxy}/same`, { method: "POST", headers, body: "{}" });
  }
}

await t.script(async (browser) => {
  const page = await t.open(browser, { as: "ann" });
  const main = page.getByRole("main");
  const flipForm = async () => {
    await page.goto("/routes/same");
    await main.getByRole("link", { name: "Move to another rung" }).click();
    await main.getByRole("button", { name: "Move same" }).waitFor();
  };
  const choose = (rung) => main.getByRole("radio", { name: new RegExp(`^${rung}`) }).check();
  const move = () => main.getByRole("button", { name: "Move same" }).click();
  const refusedWith = async (status, act) => {
    page.expectsRefusals = true;
    const [response] = await Promise.all([page.waitForResponse((reply) => reply.request().method() === "POST"), act()]);
    t.checkEqual("refused: status", response.status(), status);
    await main.getByRole("alert").first().waitFor();
    page.expectsRefusals = false;
  };

  // Up to shadow: no conditions.
  await flipForm();
  await choose("shadow");
  await main.getByLabel("Reason").first().fill("to see what differs");
  await move();
  await page.waitForURL("**/routes/same?done=*");
  t.check("the page says that it is done", /Done:/.test(await main.innerText()), await main.innerText());
  t.checkEqual("requested", (await row()).requested, "shadow");
  const flip = await newestFlip();
  t.checkEqual("who and why", [flip.by, flip.reason, flip.to], ["ann", "to see what differs", "shadow"]);
  await page.reload();
  t.checkEqual("a reload moves nothing", (await newestFlip()).number, flip.number);

  // Again: nothing changes.
  await flipForm();
  await choose("shadow");
  await move();
  await page.waitForURL("**/routes/same?done=unchanged");
  t.check("nothing changed", /nothing changed/i.test(await main.innerText()));

  // Up to dark, too early: the gate says what it needs, and what was typed is still there.
  await flipForm();
  t.check("the gate is shut", /gate to dark is shut/i.test(await main.innerText()), await main.innerText());
  const gate = await main.innerText();
  t.check("it says how many pairs it needs", /20 more compared pairs/.test(gate), gate);
  t.check("live cannot be chosen yet", await main.getByRole("radio", { name: /^live/ }).isDisabled());
  await t.checkAccessible(page, "the gate");
  await choose("dark");
  await main.getByLabel("Reason").first().fill("too early");
  await refusedWith(409, move);
  t.check("what was typed is still there", await main.getByRole("radio", { name: /^dark/ }).isChecked()
    && await main.getByLabel("Reason").first().inputValue() === "too early");
  t.checkEqual("nothing was moved", (await row()).requested, "shadow");
  await t.checkAccessible(page, "a refused move");

  // By force: only with the route's id typed, and a reason. It stays visible.
  await flipForm();
  await main.getByText("Pass the gate by force").click();
  await main.getByLabel("To which rung?").last().selectOption("dark");
  await main.getByLabel("Reason").last().fill("the deadline");
  await main.getByLabel(/type the route's id/i).fill("sam");
  await refusedWith(422, () => main.getByRole("button", { name: "Move by force" }).click());
  t.checkEqual("a wrong id moves nothing", (await row()).requested, "shadow");
  t.checkEqual("its reason is still there", await main.getByLabel("Reason").last().inputValue(), "the deadline");
  await main.getByLabel(/type the route's id/i).fill("same");
  await main.getByRole("button", { name: "Move by force" }).click();
  await page.waitForURL("**/routes/same?done=*");
  t.checkEqual("forced", [(await row()).requested, (await newestFlip()).forced], ["dark", true]);
  await page.goto("/");
  t.check("the overview says that it was forced", /forced/i.test(await main.innerText()), await main.innerText());

  // Down, at once.
  await flipForm();
  await choose("shadow");
  await move();
  await page.waitForURL("**/routes/same?done=*");
  t.checkEqual("down", (await row()).requested, "shadow");

  // With enough evidence, the gate opens while the page is open; then the move is made, with a share.
  await flipForm();
  await request(30);
  await t.until("enough pairs", async () => (await row()).pairs >= 20);
  const isOpen = async () => /gate to dark is open/i.test(await main.innerText());
  await t.until("the open page to say that the gate is open", isOpen);
  await choose("dark");
  await main.getByLabel("Share in percent").first().fill("50");
  await main.getByLabel("Reason").first().fill("30 pairs, none differs");
  await move();
  await page.waitForURL("**/routes/same?done=*");
  const moved = await row();
  t.checkEqual("moved by evidence", [moved.requested, moved.shares.dark, moved.forced], ["dark", 50, null]);
  t.checkEqual("not forced", (await newestFlip()).forced, false);

  // The kill switch.
  await page.goto("/freeze");
  await main.getByLabel("Reason").fill("the bank is down");
  await main.getByRole("button", { name: "Freeze new instances" }).click();
  await page.waitForURL("**/freeze?done=*");
  t.checkEqual("frozen", await freeze(), "instances");
  await t.checkAccessible(page, "a freeze");
  await page.goto("/");
  t.check("the overview says so", /frozen|freeze/i.test(await main.innerText()), await main.innerText());
  t.checkEqual("the route is held", (await row()).effective.why, "freeze");
  await page.goto("/freeze");
  await main.getByRole("button", { name: "Freeze effects too" }).click();
  await page.waitForURL("**/freeze?done=*");
  t.checkEqual("frozen harder", await freeze(), "effects");
  const weaker = main.getByRole("button", { name: "Freeze new instances" });
  t.checkEqual("a weaker freeze is not offered", await weaker.count(), 0);
  await main.getByRole("button", { name: "End the freeze" }).click();
  await t.until("the end of the freeze", async () => (await freeze()) === "no");

  // The record has all of it.
  await page.goto("/record");
  const record = await main.innerText();
  const reasons = ["to see what differs", "the deadline", "30 pairs, none differs", "the bank is down"];
  for (const text of [...reasons, "ann", "forced"]) {
    t.check(`the record says “${text}”`, record.includes(text), record);
  }
  t.checkNothingWrong(page, "moving");
});
