// Answers to what runs ask, given through the page, and what the API says afterwards. The test looks at what the
// services received.
import * as t from "./browser.mjs";

const { runs } = t.given;

/// The part of a run's page where something is asked.
function section(page, name) {
  return page.getByRole("main").getByRole("region", { name });
}

async function events(run, kind) {
  const { body } = await t.api("ann", "GET", `/api/v2/orchestrate/run/${run}/events`);
  return body.filter((event) => event.kind === kind).map((event) => event.event[kind]);
}

/// Waits until the open page says this somewhere.
async function untilShown(page, text) {
  await t.until(`the page to say ${text}`, async () => text.test(await t.textOf(page)));
}

await t.script(async (browser) => {
  const ann = await t.open(browser, { as: "ann" });
  const bea = await t.open(browser, { as: "bea" });
  const main = ann.getByRole("main");

  // A question, with a form made of its schema. A value that the schema refuses: nothing is lost.
  await ann.goto(`/runs/${runs.pick}`);
  const question = section(ann, /question/i);
  t.check("the question is shown", (await question.innerText()).includes("Which picture for tea?"));
  await question.getByLabel("picture").selectOption("second");
  await question.getByLabel("copies").fill("77");
  await question.getByLabel(/note/i).fill("as on the phone");
  ann.expectsRefusals = true;
  await question.getByRole("button", { name: "Send this answer" }).click();
  const refused = ann.getByRole("main");
  await refused.getByRole("alert").first().waitFor();
  ann.expectsRefusals = false;
  t.checkEqual("the wrong value is marked", await refused.getByLabel("copies").getAttribute("aria-invalid"), "true");
  t.checkEqual("what was typed is still there", [
    await refused.getByLabel("picture").evaluate((select) => select.selectedOptions[0].text),
    await refused.getByLabel("copies").inputValue(),
    await refused.getByLabel(/note/i).inputValue(),
  ], ["second", "77", "as on the phone"]);
  await t.checkAccessible(ann, "a refused answer");
  t.checkEqual("and the run goes on waiting", (await t.runData(runs.pick)).status, "waiting_checkpoint");
  await refused.getByLabel("copies").fill("3");
  await refused.getByRole("button", { name: "Send this answer" }).click();
  const picked = await t.untilStatus(runs.pick, "completed");
  t.checkEqual("the answer is the step's result", picked.output, { picked: "second" });
  const [answered] = await events(runs.pick, "checkpoint_answered");
  t.checkEqual("by whom, and why", [answered.by, answered.said.note], ["ann", "as on the phone"]);
  await untilShown(ann, /ann/);
  t.check("the page says who answered", true);

  // Two people have the same question open; the second sees what the first did.
  for (const page of [ann, bea]) await page.goto(`/runs/${runs.refund}`);
  // Bea's page gets no news, as if they answered in the same moment.
  bea.cutsRequests = true;
  await bea.route("**/events*", (route) => route.abort());
  await bea.reload();
  bea.wrong.length = 0;
  await section(ann, /approval/i).getByLabel(/note/i).fill("fine with me");
  await section(ann, /approval/i).getByRole("button", { name: "Approve", exact: true }).click();
  await t.untilStatus(runs.refund, "completed");
  bea.expectsRefusals = true;
  await section(bea, /approval/i).getByRole("button", { name: "Decline", exact: true }).click();
  await untilShown(bea, /ann/);
  const told = await t.textOf(bea);
  t.check("the second sees that the first approved it", /ann/.test(told) && /(yes|approved)/i.test(told), told);
  const [approved, again] = await events(runs.refund, "checkpoint_answered");
  t.checkEqual("one answer counts", [approved.by, again], ["ann", undefined]);
  t.checkEqual("the run stays completed", (await t.runData(runs.refund)).status, "completed");
  bea.expectsRefusals = false;

  // Declined: nothing is carried out, and the page says why the run failed.
  await bea.goto(`/runs/${runs.declined}`);
  await section(bea, /approval/i).getByLabel(/note/i).fill("too much");
  await section(bea, /approval/i).getByRole("button", { name: "Decline", exact: true }).click();
  await t.untilStatus(runs.declined, "failed");
  await untilShown(bea, /too much/);
  t.check("declined, with the reason on the page", true);

  // A review, item by item: some approved, one struck out. An item that is forgotten sends nothing.
  await ann.goto(`/runs/${runs.mails}`);
  const review = section(ann, /review/i);
  t.checkEqual("each item is listed", await review.getByRole("row").count(), 9);
  for (const [index, choice] of [[0, "Approve"], [1, "Strike out"], [2, "Approve"]]) {
    await review.getByRole("group", { name: `Item ${index}` }).getByLabel(choice).check();
  }
  ann.expectsRefusals = true;
  await review.getByRole("button", { name: "Send this decision" }).click();
  await main.getByRole("alert").first().waitFor();
  ann.expectsRefusals = false;
  t.checkEqual("forgotten items: nothing was sent", (await t.runData(runs.mails)).status, "waiting_checkpoint");
  const kept = section(ann, /review/i);
  const struck = kept.getByRole("group", { name: "Item 1" }).getByLabel("Strike out");
  t.check("what was chosen is still chosen", await struck.isChecked());
  await kept.getByLabel(/approve all of them/i).check();
  await kept.getByRole("button", { name: "Send this decision" }).click();
  const mailed = await t.untilStatus(runs.mails, "completed");
  t.checkEqual("seven of eight were sent", mailed.steps[0].status, "done");
  const [reviewed] = await events(runs.mails, "checkpoint_answered");
  t.checkEqual("one was struck out", reviewed.said.struck, [1]);
  for (const page of [ann, bea]) t.checkNothingWrong(page, "answering");
});
