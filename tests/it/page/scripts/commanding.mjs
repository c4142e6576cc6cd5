// Conflicts resolved and commands given through the page, and what the API says afterwards. The test looks at what the
// services received.
import * as t from "./browser.mjs";

const { runs } = t.given;

async function events(run, kind) {
  const { body } = await t.api("ann", "GET", `/api/v2/orchestrate/run/${run}/events`);
  return body.filter((event) => event.kind === kind).map((event) => event.event[kind]);
}

/// Opens a run with a conflict; returns the part of the page that is about it.
async function conflict(page, run) {
  await page.goto(`/runs/${run}`);
  return page.getByRole("main").getByRole("region", { name: /refused/i });
}

/// Follows the link of a command, and waits for the page that says what it will do.
async function command(page, run, title) {
  await page.goto(`/runs/${run}`);
  await page.getByRole("main").getByRole("link", { name: title }).click();
  await page.getByRole("main").getByRole("button", { name: title }).waitFor();
  return page.getByRole("main");
}

await t.script(async (browser) => {
  const page = await t.open(browser, { as: "ann" });
  const decide = (asked) => asked.getByRole("button", { name: "Do what is chosen" }).click();

  // Sent again.
  let asked = await conflict(page, runs.retried);
  const text = await asked.innerText();
  t.check("the conflict shows what was sent", /POST .*\/charges/.test(text), text);
  t.check("and what came back", text.includes("409"), text);
  await t.checkAccessible(page, "a conflict");
  await asked.getByRole("radio", { name: "Send it again" }).check();
  await asked.getByLabel(/reason/i).fill("the bank says it works again");
  await decide(asked);
  const retried = await t.untilStatus(runs.retried, "completed");
  t.check("sent again, and done", retried.output.paid !== null, retried.output);
  const [resolved] = await events(runs.retried, "resolved");
  t.checkEqual("by whom, and why", [resolved.by, resolved.reason], ["ann", "the bank says it works again"]);

  // Skipped.
  asked = await conflict(page, runs.skipped);
  await asked.getByRole("radio", { name: "Skip the step" }).check();
  await decide(asked);
  t.checkEqual("skipped", (await t.untilStatus(runs.skipped, "completed")).output, { paid: null });

  // Done by hand: content that is no JSON changes nothing, and is still there.
  asked = await conflict(page, runs.taken);
  await asked.getByRole("radio", { name: "Count it as done" }).check();
  await asked.getByLabel("The output of the step").fill('{"id": "by hand"');
  page.expectsRefusals = true;
  await decide(asked);
  await page.getByRole("alert").first().waitFor();
  page.expectsRefusals = false;
  asked = page.getByRole("main").getByRole("region", { name: /refused/i });
  t.checkEqual("no JSON: nothing was done", (await t.runData(runs.taken)).status, "paused");
  const output = asked.getByLabel("The output of the step");
  t.checkEqual("no JSON: it is still there", await output.inputValue(), '{"id": "by hand"');
  t.check("no JSON: the choice too", await asked.getByRole("radio", { name: "Count it as done" }).isChecked());
  await output.fill('{"id": "by hand"}');
  await decide(asked);
  t.checkEqual("done by hand", (await t.untilStatus(runs.taken, "completed")).output, { paid: { id: "by hand" } });

  // Cancelled, with undo: the page lists what was undone.
  asked = await conflict(page, runs.undone);
  await asked.getByRole("radio", { name: "Cancel the run and undo" }).check();
  await decide(asked);
  await t.untilStatus(runs.undone, "cancelled");
  await page.goto(`/runs/${runs.undone}`);
  const shown = await t.textOf(page);
  t.check("the page says that the reservation was undone", /reserve/.test(shown) && /undone/i.test(shown), shown);

  // Paused and resumed; each first says what it will do.
  let main = await command(page, runs.held, "Pause the run");
  t.checkEqual("asked first: nothing was done yet", (await t.runData(runs.held)).status, "waiting_signal");
  t.check("it says what will happen", /until somebody resumes/i.test(await main.innerText()), await main.innerText());
  await t.checkAccessible(page, "the page of a command");
  await main.getByLabel(/reason/i).fill("the shop is closed");
  await main.getByRole("button", { name: "Pause the run" }).click();
  await t.untilStatus(runs.held, "paused");
  await page.waitForURL(`**/runs/*`);
  await t.until("the page to say why", async () => (await t.textOf(page)).includes("the shop is closed"));
  const offered = page.getByRole("main").getByRole("link", { name: "Pause the run" });
  t.checkEqual("a paused run cannot be paused", await offered.count(), 0);
  main = await command(page, runs.held, "Resume the run");
  await main.getByRole("button", { name: "Resume the run" }).click();
  await t.untilStatus(runs.held, "waiting_signal");
  const [paused] = await events(runs.held, "pause_ordered");
  t.checkEqual("by whom, and why", [paused.by, paused.reason], ["ann", "the shop is closed"]);

  // A signal, by its form.
  main = await command(page, runs.held, "Send a signal");
  await main.getByLabel(/content|payload/i).fill('{"amount": 7}');
  await main.getByRole("button", { name: "Send a signal" }).click();
  t.checkEqual("the signal's content", (await t.untilStatus(runs.held, "completed")).output, { amount: 7 });

  // Cancelled. A second cancel is refused, and the page says so.
  const late = await t.open(browser, { as: "bea" });
  const late_main = await command(late, runs.stopped, "Cancel the run");
  main = await command(page, runs.stopped, "Cancel the run");
  await main.getByLabel(/reason/i).fill("the customer said no");
  await main.getByRole("button", { name: "Cancel the run" }).click();
  await t.untilStatus(runs.stopped, "cancelled");
  late.expectsRefusals = true;
  await late_main.getByRole("button", { name: "Cancel the run" }).click();
  await t.until("the second to be told", async () => /ended|cancelled/i.test(await t.textOf(late)));
  t.checkEqual("cancelled once", (await events(runs.stopped, "cancel_ordered")).length, 1);

  // Several at once: a preview first, which says what each would do; then all of them, each once.
  await page.goto("/runs");
  main = page.getByRole("main");
  for (const run of [runs.one, runs.other, runs.retried]) await main.getByRole("checkbox", { name: run }).check();
  await main.getByLabel("With the selected runs").selectOption({ label: "Pause" });
  await main.getByRole("button", { name: "Preview" }).click();
  await main.getByRole("button", { name: "Pause: 2 runs" }).waitFor();
  t.check("the preview says that a completed run stays as it is", /stays as it is/i.test(await main.innerText()));
  t.checkEqual("the preview does nothing", (await t.runData(runs.one)).status, "waiting_signal");
  await t.checkAccessible(page, "the preview of an action on several runs");
  await main.getByLabel(/reason/i).fill("the shop is closed");
  await main.getByRole("button", { name: "Pause: 2 runs" }).click();
  for (const run of [runs.one, runs.other]) await t.untilStatus(run, "paused");
  t.check("both are paused", true);
  await main.getByText("Every run has taken it.").waitFor();
  t.checkEqual("each once", (await events(runs.one, "pause_ordered")).length, 1);
  for (const each of [page, late]) t.checkNothingWrong(each, "commanding");
});
