// Pictures of every view, for the eye:  node screenshots.mjs URL DIRECTORY [TOKEN]
// Follows the links from the overview of a running Pointsman, and takes a picture of each kind of page, of runs one for
// each status, in light and dark and in a narrow window. POINTSMAN_BROWSER_PACKAGES and POINTSMAN_CHROMIUM as in
// tests/run.
import { mkdirSync } from "node:fs";

const [url, directory, token] = process.argv.slice(2);
if (!directory) throw new Error("node screenshots.mjs URL DIRECTORY [TOKEN]");
process.env.POINTSMAN_PAGE_TEST = JSON.stringify({ url: url.replace(/\/$/, ""), tokens: { somebody: token } });
const t = await import("./browser.mjs");

const OTHER = /^\/(docs|api|metrics|openapi\.json|page)(\/|$)/;
const PICTURES_MAX = 60;

/// The name of the pictures of a page: its address without ids, and what it shows; the same for pages of one kind.
async function kind(page) {
  const { pathname, searchParams } = new URL(page.url());
  const path = t.pathShape(new URL(page.url()));
  const headings = await page.locator("h2").allTextContents();
  const shown = pathname.startsWith("/runs/") ? headings.slice(0, 3).join("-") : [...searchParams.keys()].join("-");
  const name = `${path} ${shown}`.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-").slice(0, 80);
  return name.replaceAll(/^-+|-+$/g, "") || "overview";
}

mkdirSync(directory, { recursive: true });
await t.script(async (browser) => {
  const as = token ? "somebody" : undefined;
  const page = await t.open(browser, { as });
  const waiting = ["/"];
  const known = new Set(waiting);
  const pictures = new Map();
  while (waiting.length > 0 && pictures.size < PICTURES_MAX) {
    const path = waiting.shift();
    await page.goto(path);
    const name = await kind(page);
    if (pictures.has(name)) continue;
    pictures.set(name, path);
    for (const address of (await t.linksOf(page)).map(({ href }) => new URL(href))) {
      const next = address.pathname + address.search;
      if (address.origin !== new URL(t.given.url).origin || known.has(next) || OTHER.test(address.pathname)) continue;
      known.add(next);
      waiting.push(next);
    }
  }
  for (const look of ["light", "dark", "narrow"]) {
    const shown = await t.open(browser, { as, ...t.LOOKS[look] });
    for (const [name, path] of pictures) {
      await shown.goto(path);
      await shown.screenshot({ path: `${directory}/${name}.${look}.png`, fullPage: true });
    }
    await shown.context().close();
  }
  t.check(`${pictures.size} views: ${[...pictures].map(([name, path]) => `${name} (${path})`).join(", ")}`, true);
});
