// The differences of a route: what differs, side by side, and rules that are tried before anybody writes them.
import * as t from "./browser.mjs";

async function pairs() {
  const { body } = await t.api("ann", "GET", "/api/v2/routes/things/diffs");
  return [body.pairs, body.mismatched];
}

await t.script(async (browser) => {
  const page = await t.open(browser, { as: "eve" });
  const main = page.getByRole("main");
  const before = await pairs();
  await page.goto("/");
  await main.getByRole("link", { name: "things", exact: true }).click();
  await main.getByRole("link", { name: "Differences" }).click();
  await main.getByRole("heading", { level: 1, name: /differences/i }).waitFor();
  const text = await main.innerText();
  t.check("it says how many pairs differ", /\b4\b/.test(text), text);
  t.check("what legacy said", text.includes("legacy's <i>text</i>"), text);
  t.check("what the engine said", text.includes("the engine's <b>text</b>"), text);
  t.check("where", text.includes("$.text") && text.includes("$.id"), text);
  t.check("which effect only the engine would have had", /note/i.test(text) && /POST/.test(text), text);

  // Rules are proposed, each with what it would hide.
  await main.getByRole("link", { name: /propose rules/i }).click();
  await main.getByRole("heading", { name: "Rules", exact: true }).waitFor();
  await t.checkAccessible(page, "proposed rules");

  // Wrong rules: the same form, with what is wrong, and nothing lost.
  const rules = main.getByLabel("Rules to try");
  await rules.fill("headers: []\nignroe: [$.id]\n");
  page.expectsRefusals = true;
  await main.getByRole("button", { name: "Try these rules" }).click();
  await main.getByRole("alert").first().waitFor();
  page.expectsRefusals = false;
  t.check("it names what is wrong", (await main.innerText()).includes("ignroe"), await main.innerText());
  t.checkEqual("what was typed is still there", await rules.inputValue(), "headers: []\nignroe: [$.id]\n");
  await t.checkAccessible(page, "refused rules");

  // Right ones: what they would hide, and what stays.
  await rules.fill("headers: []\nignore: [$.id, $.note]\n");
  await main.getByRole("button", { name: "Try these rules" }).click();
  await main.getByText(/nothing was written/i).first().waitFor();
  const result = await main.innerText();
  t.check("it says what would differ still", /Differs still:[^]*at text;/.test(result), result);
  await t.checkAccessible(page, "tried rules");
  t.checkEqual("the evidence is as it was", await pairs(), before);
  t.checkNothingWrong(page, "differences");
});
