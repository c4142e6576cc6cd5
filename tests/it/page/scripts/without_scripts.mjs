// Every view has the same headings, links, buttons and fields in a browser that runs no scripts, and what a person
// sends from there has its effect.
import * as t from "./browser.mjs";

/// What can be read and operated in the page, each by role and text, sorted.
async function contents(page) {
  const kinds = "h1, h2, h3, a[href], button, input:not([type=hidden]), select, textarea, th";
  const found = await page.locator(kinds).evaluateAll(
    // The count of what waits, and notifications, are of the script. It shows times in the zone of the viewer.
    (elements) => elements.filter((element) => !element.closest("#waiting") && !element.matches(".notify")).map((element) => {
      const name = element.name ? ` ${element.name}` : "";
      const to = element.matches("a") ? ` ${element.getAttribute("href")}` : "";
      const shown = element.cloneNode(true);
      for (const time of shown.querySelectorAll("time")) time.textContent = time.dateTime;
      const texts = document.createNodeIterator(shown, NodeFilter.SHOW_TEXT);
      const words = [];
      for (let node = texts.nextNode(); node; node = texts.nextNode()) words.push(node.data.trim());
      return `${element.localName}${name}${to}: ${words.join(" ")}`.trim();
    }),
  );
  // A duration that goes on between the two visits is no difference.
  return [...new Set(found.map((text) => text.replaceAll(/\d+(\.\d+)? ?(ms|s|min|h)\b/g, "TIME")))].sort();
}

await t.script(async (browser) => {
  const [scripted, plain] = [
    await t.open(browser, { as: "ann" }),
    await t.open(browser, { as: "ann", javaScriptEnabled: false }),
  ];
  for (const { name, path, status } of t.given.views) {
    await t.go(plain, path, status);
    await t.go(scripted, path, status);
    const [without, with_scripts] = [await contents(plain), await contents(scripted)];
    const missing = with_scripts.filter((text) => !without.includes(text));
    t.checkEqual(`${name}: nothing is missing without scripts`, missing, []);
    const hidden = await plain.locator("noscript").count();
    t.checkEqual(`${name}: no second version for browsers without scripts`, hidden, 0);
    const hides = await plain.locator("main [hidden]").count();
    t.checkEqual(`${name}: nothing waits for a script to be shown`, hides, 0);
    t.checkNothingWrong(plain, name);
    t.checkNothingWrong(scripted, name);
  }
  // Without scripts, a whole way: log in, and answer what a run asks.
  const fresh = await t.open(browser, { javaScriptEnabled: false });
  const run = t.given.runs.refund;
  await fresh.goto(`/runs/${run}`);
  await t.logIn(fresh, t.given.tokens.bea);
  await fresh.getByRole("button", { name: /^approve/i }).click();
  await t.until("the run to go on", async () => (await t.runData(run)).status === "completed");
  t.check("answered without scripts", true);
  t.checkNothingWrong(fresh, "answering without scripts");
});
