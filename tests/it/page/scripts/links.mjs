// Follows every link and every form that only shows something, from the overview on: each leads to a page that opens
// without an error and is accessible. Of addresses that differ in ids and values only, the first three are opened.
import * as t from "./browser.mjs";

/// What is not of the page: documents and the API.
const OTHER = /^\/(docs|api|metrics|openapi\.json|page)(\/|$)/;
const SAME_SHAPE_MAX = 3;
const PAGES_MAX = 80;

function shape(address) {
  return `${t.pathShape(address)}?${[...address.searchParams.keys()].sort().join("&")}`;
}

await t.script(async (browser) => {
  const page = await t.open(browser, { as: t.given.as ?? "ann", ...t.LOOKS[t.given.look ?? "light"] });
  const waiting = ["/"];
  const known = new Set(waiting);
  const shapes = new Map();
  let opened = 0;
  while (waiting.length > 0 && opened < PAGES_MAX) {
    const path = waiting.shift();
    const of = shape(new URL(path, t.given.url));
    const count = (shapes.get(of) ?? 0) + 1;
    if (count > SAME_SHAPE_MAX) continue;
    shapes.set(of, count);
    opened += 1;
    await t.go(page, path);
    if (count === 1) await t.checkAccessible(page, path);
    await t.checkInert(page, path);
    t.checkNothingWrong(page, path);
    const forms = await page.evaluate(() => [...document.forms].filter((form) => form.method === "get").map((form) => {
      const query = new URLSearchParams(new FormData(form));
      return { text: "a form", href: `${form.action.split("?")[0]}?${query}` };
    }));
    const found = [...await t.linksOf(page), ...forms];
    for (const { text, href } of found) {
      const address = new URL(href);
      const is_own = address.origin === new URL(t.given.url).origin;
      t.check(`${path}: the link “${text.trim()}” leads to this server`, is_own, href);
      const next = address.pathname + address.search;
      if (!is_own || known.has(next) || OTHER.test(address.pathname)) continue;
      known.add(next);
      waiting.push(next);
    }
  }
  t.check("the crawl found the views", shapes.size >= (t.given.shapes_min ?? 8), [...shapes.keys()]);
});
