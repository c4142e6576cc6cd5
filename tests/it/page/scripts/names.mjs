// Without tokens: nobody has to log in, and the name that a person gives is recorded as unverified, whatever it is.
import * as t from "./browser.mjs";

const HOSTILE = "<b onclick=alert(1)>ann</b>\u202e";

await t.script(async (browser) => {
  const page = await t.open(browser);
  const [banner, main] = [page.getByRole("banner"), page.getByRole("main")];
  const setName = async (name) => {
    await banner.getByLabel("Your name").fill(name);
    const done = page.waitForResponse((response) => response.request().method() === "POST");
    await banner.getByRole("button", { name: "Set" }).click();
    await done;
    await page.waitForLoadState();
  };
  const approve = async (run) => {
    await t.go(page, `/runs/${run}`);
    await t.checkInert(page, "a page without tokens");
    await main.getByRole("button", { name: "Approve", exact: true }).click();
    await t.untilStatus(run, "completed");
    const { body } = await t.api("ann", "GET", `/api/v2/orchestrate/run/${run}/events`);
    return body.find((event) => event.kind === "checkpoint_answered").event.checkpoint_answered.by;
  };
  await t.go(page, `/runs/${t.given.runs.refund}`);
  await t.checkAccessible(page, "a page without tokens");
  await setName("ann");
  const back = decodeURIComponent(new URL(page.url()).pathname);
  t.checkEqual("the page is the same", back, `/runs/${t.given.runs.refund}`);
  t.checkEqual("the name is kept", await banner.getByLabel("Your name").inputValue(), "ann");
  t.checkEqual("recorded as unverified", await approve(t.given.runs.refund), "ann (unverified)");

  await setName(HOSTILE);
  t.checkEqual("as it was given", await banner.getByLabel("Your name").inputValue(), HOSTILE);
  t.checkEqual("recorded as it was given", await approve(t.given.runs.other), `${HOSTILE} (unverified)`);
  for (const path of [`/runs/${t.given.runs.other}`, "/runs", "/record", "/"]) {
    await t.go(page, path);
    await t.checkInert(page, path);
    t.checkEqual(`${path}: the name is no element`, await page.locator("[onclick]").count(), 0);
  }
  t.checkNothingWrong(page, "without tokens");
});
