//! A topic as a plain HTML page: headings, paragraphs, lists, tables and code, without scripts or styles.
//!
//! Always true: every character of the text is escaped; the only markup is what this file writes.

/// Markdown as a whole page. `links` are pages to link to, as (address, name).
pub fn page(title: &str, markdown: &str, links: &[(String, &str)]) -> String {
    let links: Vec<String> =
        links.iter().map(|(address, name)| format!("<a href=\"{}\">{}</a>", escape(address), escape(name))).collect();
    let nav = if links.is_empty() { String::new() } else { format!("<nav>{}</nav>\n", links.join(" | ")) };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{}</title></head>\n<body>\n{nav}{}</body>\n</html>\n",
        escape(title),
        body(markdown)
    )
}

/// The kind of block that is being written. An empty line or one that begins another block ends it; other lines belong
/// to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Paragraph,
    Bullets,
    Numbers,
    Table,
}

impl Block {
    fn tags(self) -> (&'static str, &'static str) {
        match self {
            Block::None => ("", ""),
            Block::Paragraph => ("<p>", "</p>\n"),
            Block::Bullets => ("<ul>\n<li>", "</li>\n</ul>\n"),
            Block::Numbers => ("<ol>\n<li>", "</li>\n</ol>\n"),
            Block::Table => ("<table>\n", "</table>\n"),
        }
    }
}

fn body(markdown: &str) -> String {
    let mut out = String::new();
    let mut block = Block::None;
    let mut code = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            end(&mut out, &mut block);
            out.push_str(if code { "</code></pre>\n" } else { "<pre><code>" });
            code = !code;
        } else if code {
            out.push_str(&escape(line));
            out.push('\n');
        } else if let Some((level, heading)) = heading(line) {
            end(&mut out, &mut block);
            out.push_str(&format!("<h{level}>{}</h{level}>\n", inline(heading)));
        } else if line.is_empty() {
            end(&mut out, &mut block);
        } else if let Some(item) = line.strip_prefix("- ") {
            item_of(&mut out, &mut block, Block::Bullets, item);
        } else if let Some((_, item)) = line.split_once(". ").filter(|(n, _)| n.parse::<u32>().is_ok()) {
            item_of(&mut out, &mut block, Block::Numbers, item);
        } else if line.starts_with('|') {
            row(&mut out, &mut block, line);
        } else if block == Block::None {
            begin(&mut out, &mut block, Block::Paragraph);
            out.push_str(&inline(line));
        } else {
            out.push('\n');
            out.push_str(&inline(line.trim_start()));
        }
    }
    end(&mut out, &mut block);
    out
}

fn begin(out: &mut String, block: &mut Block, next: Block) {
    end(out, block);
    out.push_str(next.tags().0);
    *block = next;
}

fn end(out: &mut String, block: &mut Block) {
    out.push_str(block.tags().1);
    *block = Block::None;
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let text = line.get(level..)?.strip_prefix(' ')?;
    (1..=3).contains(&level).then_some((level, text))
}

fn item_of(out: &mut String, block: &mut Block, list: Block, item: &str) {
    if *block == list {
        out.push_str("</li>\n<li>");
    } else {
        begin(out, block, list);
    }
    out.push_str(&inline(item));
}

fn row(out: &mut String, block: &mut Block, line: &str) {
    if line.bytes().all(|byte| matches!(byte, b'|' | b'-' | b' ')) {
        return; // the line between head and body
    }
    let cell = if *block == Block::Table { "td" } else { "th" };
    if *block != Block::Table {
        begin(out, block, Block::Table);
    }
    let cells = line.trim_matches('|').split('|').map(|text| format!("<{cell}>{}</{cell}>", inline(text.trim())));
    out.push_str(&format!("<tr>{}</tr>\n", cells.collect::<String>()));
}

/// Code spans and bold text within a line.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            out.push_str(&format!("<code>{}</code>", escape(part)));
            continue;
        }
        for (n, part) in part.split("**").enumerate() {
            match n % 2 {
                1 => out.push_str(&format!("<b>{}</b>", escape(part))),
                _ => out.push_str(&escape(part)),
            }
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_plain_markup() {
        let text = "# A <title>\n\nOne `a < b` and **two**\nlines.\n\n- first\n  more\n- second\n\n1. one\n2. two\n\n| a | b |\n|---|---|\n| 1 | `2` |\n\n```sh\necho \"<&>\"\n```\n";
        assert_eq!(
            body(text),
            "<h1>A &lt;title&gt;</h1>\n<p>One <code>a &lt; b</code> and <b>two</b>\nlines.</p>\n<ul>\n<li>first\nmore</li>\n<li>second</li>\n</ul>\n\
             <ol>\n<li>one</li>\n<li>two</li>\n</ol>\n<table>\n<tr><th>a</th><th>b</th></tr>\n<tr><td>1</td><td><code>2</code></td></tr>\n</table>\n\
             <pre><code>echo &quot;&lt;&amp;&gt;&quot;\n</code></pre>\n"
        );
    }

    #[test]
    fn every_topic_is_closed_markup() {
        for topic in crate::docs::TOPICS {
            let page = page(topic.title(), &topic.text(), &[("/docs".into(), "topics")]);
            for tag in ["p", "ul", "ol", "li", "pre", "code", "table", "tr", "b"] {
                let (open, close) =
                    (page.matches(&format!("<{tag}>")).count(), page.matches(&format!("</{tag}>")).count());
                assert_eq!(open, close, "{}: <{tag}>", topic.name);
            }
        }
    }
}
