// With the keyboard alone: the way into the page, through it, and a decision.
import * as t from "./browser.mjs";

const STOPS_MAX = 250;

/// Gives the page a function that finds the name of an element, as far as these tests need it.
async function addNames(page) {
  await page.addInitScript(() => {
    window.__nameOf = (element) => {
      const label = element.getAttribute("aria-label") ?? element.labels?.[0]?.innerText;
      return (label ?? element.innerText ?? element.textContent).trim().replaceAll(/\s+/g, " ");
    };
  });
}

/// Where the keyboard stands: role and name as a screen reader says them, and whether it can be seen.
async function focused(page) {
  return page.evaluate(() => {
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    // Of a field with several parts, such as a time, the browser marks the part that has the keyboard.
    const has_parts = element.type === "datetime-local";
    const is_outlined = has_parts || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0);
    return {
      tag: element.localName,
      name: window.__nameOf(element),
      href: element.getAttribute("href"),
      seen: is_outlined && box.width > 0 && box.height > 0 && box.left > -box.width && box.top > -box.height,
      html: element.outerHTML.slice(0, 200),
    };
  });
}

/// Walks through the page with the Tab key, from its beginning until the keyboard leaves the page.
async function stops(page) {
  const all = [];
  for (let count = 0; count < STOPS_MAX; count += 1) {
    await page.keyboard.press("Tab");
    const now = await focused(page);
    if (now === null) return all;
    // A radio group is one stop; everything else is stopped at once.
    all.push(now);
  }
  throw new Error(`more than ${STOPS_MAX} stops: ${JSON.stringify(all.slice(-5))}`);
}

/// Presses Tab until the keyboard stands on something with this name.
async function tabTo(page, name) {
  for (let count = 0; count < STOPS_MAX; count += 1) {
    await page.keyboard.press("Tab");
    const now = await focused(page);
    if (now && name.test(now.name)) return now;
  }
  throw new Error(`the keyboard does not reach ${name}`);
}

await t.script(async (browser) => {
  const { runs, tokens, views } = t.given;
  // The login: the field has the keyboard at once.
  const page = await t.open(browser);
  await addNames(page);
  await page.goto(`/runs/${runs.refund}`);
  // The browser gives a field the keyboard some time after the page has loaded.
  await t.until("the login to begin in its field", async () => (await focused(page))?.name === "Your token");
  await page.keyboard.type(tokens.ann);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/runs/${runs.refund}`);
  t.check("logged in by keyboard", true);

  for (const { name, path, status } of views) {
    await t.go(page, path, status);
    const all = await stops(page);
    t.check(`${name}: the first stop skips to the content`, all[0]?.name === "Skip to the content", all[0]);
    t.checkEqual(`${name}: every stop has a name`, all.filter((stop) => stop.name === ""), []);
    t.checkEqual(`${name}: every stop can be seen`, all.filter((stop) => !stop.seen), []);
    // All that can be clicked is reached. (Of a group of radio buttons, one.)
    const reached = new Set(all.map((stop) => stop.name));
    const operable = page.locator("main :is(a[href], button:enabled, select, textarea, summary, input:enabled)");
    const names = await operable.evaluateAll((elements) => elements
      .filter((element) => element.checkVisibility() && !["hidden", "radio"].includes(element.type))
      .map((element) => window.__nameOf(element)));
    t.checkEqual(`${name}: the keyboard reaches everything`, names.filter((text) => !reached.has(text)), []);
  }

  // The skip link leads behind the navigation.
  await page.goto(`/runs/${runs.refund}`);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  const inside = await page.evaluate(() => document.activeElement.closest("main") !== null);
  t.check("behind the skip link, the next stop is in the content", inside, await focused(page));

  // A decision: with Tab, text and Enter.
  await page.goto(`/runs/${runs.refund}`);
  await tabTo(page, /note/i);
  await page.keyboard.type("by keyboard");
  await tabTo(page, /^approve/i);
  await page.keyboard.press("Enter");
  const data = await t.untilStatus(runs.refund, "completed");
  t.check("approved by keyboard", data.status === "completed");
  t.checkNothingWrong(page, "by keyboard");
});
