// What changes is shown without a reload: over a stream of events, which goes on after it was cut.
import * as t from "./browser.mjs";

/// Whether the page's content says this.
async function shows(page, text) {
  return (await t.textOf(page)).includes(text);
}

/// Waits until it does, on a page that is not loaded again meanwhile.
async function untilShown(page, what, look) {
  await t.until(what, look);
  t.checkEqual(`${what}: without a reload`, await page.evaluate(() => window.__mark), "not loaded again");
}

async function mark(page) {
  await page.evaluate(() => { window.__mark = "not loaded again"; });
}

async function flip(to) {
  await t.api("ann", "POST", "/api/v2/routes/same/flip", { to, reason: "a test of the page" });
}

await t.script(async (browser) => {
  const link = await t.CuttableLink.open();
  const open = async (path) => {
    const page = await t.open(browser, { as: "ann", url: link.url });
    await page.goto(path);
    await mark(page);
    return page;
  };
  const signal = (run, amount) =>
    t.api("ann", "POST", `/api/v2/orchestrate/run/${run}/signals/paid`, { payload: { amount } });
  const [first, second] = [
    await t.startRunUntil("waiting_signal", "payment"),
    await t.startRunUntil("waiting_signal", "payment"),
  ];
  const page = await open(`/runs/${first}`);
  const list = await open("/runs");
  const overview = await open("/");
  const form = await open("/routes/same/flip");
  const row = (run) => list.getByRole("row").filter({ has: t.linkToRun(list, run) });
  t.check("the run waits", await shows(page, "waits for a signal"), await t.textOf(page));

  // A run ends.
  await signal(first, 5);
  await untilShown(page, "the run's page says that it is completed", () => shows(page, "completed"));
  const isCompleted = async (run) => (await row(run).innerText()).includes("completed");
  await untilShown(list, "the list says that it is completed", () => isCompleted(first));

  // A new run comes into the list; one that asks is counted in the title.
  const fresh = await t.startRunUntil("completed", "below", { n: 2 });
  await untilShown(list, "the new run is in the list", () => t.linkToRun(list, fresh).isVisible());
  await t.startRunUntil("waiting_checkpoint", "refund", { amount: 3 });
  await untilShown(overview, "the title counts what waits", async () => /^\(\d+\)/.test(await overview.title()));

  // A route moves, while somebody types in the form that moves it.
  const reason = form.getByLabel("Reason").first();
  await reason.fill("half a sentence");
  const moved = overview.getByRole("row").filter({ has: overview.getByRole("link", { name: "same", exact: true }) }).first();
  const before = await moved.innerText();
  await flip("shadow");
  await untilShown(overview, "the overview shows the move", async () => (await moved.innerText()) !== before);
  await untilShown(form, "the open form shows the next gate", () => shows(form, "gate to dark"));
  t.checkEqual("what was typed is still there", await reason.inputValue(), "half a sentence");
  t.check("and still has the keyboard", await reason.evaluate((element) => element === document.activeElement));
  await t.api("ann", "POST", "/api/v2/freeze", { on: true, reason: "the bank is down" });
  const isFrozen = async () => /frozen|freeze of/i.test(await t.textOf(overview));
  await untilShown(overview, "the overview shows the freeze", isFrozen);
  await t.api("ann", "POST", "/api/v2/freeze", { on: false });
  for (const each of [page, list, overview, form]) t.checkNothingWrong(each, "live");

  // The stream is cut, the run ends meanwhile, and the stream comes back: the pages catch up.
  const late = await open(`/runs/${second}`);
  link.cut();
  await signal(second, 6);
  await t.untilStatus(second, "completed");
  t.check("the cut page does not know yet", !(await shows(late, "completed")));
  link.mend();
  await untilShown(late, "the run's page catches up", () => shows(late, "completed"));
  await untilShown(list, "the list catches up", () => isCompleted(second));
  // The browser reports each connection that was refused meanwhile; anything else would be wrong.
  for (const each of [late, list]) {
    const others = each.wrong.filter((what) => !/ERR_(CONNECTION|EMPTY|INCOMPLETE|SOCKET|NETWORK)/.test(what));
    t.checkEqual("after the cut: no other error", others, []);
  }
});
