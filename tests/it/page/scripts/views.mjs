// Every view of `views` in every look of `looks`: it opens without an error, is accessible, fits the window, and shows
// nothing recorded as markup. With `pictures`, a screenshot of each goes there.
import * as t from "./browser.mjs";

/// The checks above find what is planted into the page.
async function checkChecks(page) {
  await page.evaluate(() => {
    const planted = document.createElement("div");
    planted.innerHTML = "<button></button><img src=x alt='' onerror='window.__planted=9'><hr width=9000>";
    document.querySelector("main").append(planted);
  });
  await t.until("the policy to refuse the planted script", () => page.wrong.length > 0);
  t.checkEqual("a planted script does not run", await page.evaluate(() => window.__planted), undefined);
  t.check("a planted line of 9,000 pixels is too wide", (await t.tooWide(page)).by > 0);
  const rules = (await t.accessibilityViolations(page)).map(({ rule }) => rule);
  t.check("a planted button without a name is found", rules.includes("button-name"), rules);
}

await t.script(async (browser) => {
  for (const look of t.given.looks) {
    const page = await t.open(browser, { as: "ann", ...t.LOOKS[look] });
    for (const { name, path, status, shows } of t.given.views) {
      const what = `${name}, ${look}`;
      await t.go(page, path, status);
      const headings = await page.getByRole("heading", { level: 1 }).allTextContents();
      t.check(`${what}: one heading of the first level`, headings.length === 1 && headings[0].trim() !== "", headings);
      await t.checkAccessible(page, what);
      await t.checkNoSideScroll(page, what);
      if (look === "still") {
        const moving = await page.evaluate(() => document.getAnimations().map((one) => one.effect.target?.outerHTML));
        t.checkEqual(`${what}: nothing moves`, moving, []);
      }
      await t.checkInert(page, what);
      if (shows) {
        const text = await page.getByRole("main").textContent();
        t.check(`${what}: it shows ${shows}`, text.includes(shows), text);
      }
      t.checkNothingWrong(page, what);
      if (t.given.pictures) {
        const file = `${t.given.pictures}/${name.replaceAll(/[^a-z0-9]+/g, "-")}.${look}.png`;
        await page.screenshot({ path: file, fullPage: true });
      }
    }
    await checkChecks(page);
    await page.context().close();
  }
});
