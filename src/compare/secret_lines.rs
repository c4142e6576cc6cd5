//! Finds the lines of a text that are secret because of lines before them.
//!
//! Always true: the lines of a private key are secret; so is the line after a line that ends with the name of a secret,
//! and what is indented below a line that ends or begins with one: a block or a list of YAML, a header that goes on. So
//! are all lines of a section of secrets (`[secrets]`), up to the next section, and the lines up to the quote that ends
//! a value.
//! Where the line after such a line opens a fence, the lines up to the end of the fence are secret.
//! Behind a bracket (`"password": {`) the rest of the text is secret, because it is not known where the value ends.

use super::line_secrets::{
    NameInLine, closes, ends_with_bearer, fence, is_underline, may_be_secret, named_at_start, named_on_the_next_line,
    only_begins_a_secret, opens_a_secret, unclosed_quote, unescaped,
};
use super::section_secrets::{SectionLine, SectionOfSecrets, section_of_secrets};
use crate::secret::{PrivateKeyLines, singular};

/// Tells of the lines of one text, one after the other, which of them are secret.
pub(super) struct SecretLines<'n> {
    is_secret: &'n dyn Fn(&str) -> bool,
    key: PrivateKeyLines,
    following: Following,
}

/// What the lines so far say of the next one.
#[derive(Clone)]
enum Following {
    Nothing,
    /// It is the value of this name, or its first line.
    Value(Name),
    /// It is the first element of a list of values.
    FirstOfList(Name),
    /// It belongs to a value, if it is indented.
    Block {
        name: Name,
        is_list: bool,
    },
    /// It may be a bearer token.
    Token,
    /// It belongs to a section of secrets, unless it begins another section.
    Section(SectionOfSecrets),
    /// It belongs to a value in these quotes; `quotes`: how many of them the value has had so far.
    Quoted {
        quote: &'static str,
        quotes: usize,
    },
    /// It belongs to a value, and so do all lines after it.
    Rest,
}

#[derive(Clone)]
struct Name {
    name: String,
    column: usize,
}

impl Name {
    fn of(found: NameInLine<'_>) -> Self {
        Self { name: found.name.to_owned(), column: found.column }
    }
}

/// A line that is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretLine {
    /// The name whose value the line is; `None` if there is none, or if the line may have more than a value.
    pub name: Option<String>,
    /// Whether the line has a name of its own before the value: `name = value`.
    pub is_assigned: bool,
}

impl<'n> SecretLines<'n> {
    /// `is_secret`: whether the value under a name is secret.
    pub(super) fn of(is_secret: &'n dyn Fn(&str) -> bool) -> Self {
        Self { is_secret, key: PrivateKeyLines::default(), following: Following::Nothing }
    }

    /// The next line, if the lines before it make it secret. Otherwise `None`: the line has to be searched by itself.
    /// Also `None` for an empty line.
    pub(super) fn next(&mut self, line: &str) -> Option<SecretLine> {
        let is_of_key = self.key.next(line);
        let content = line.trim();
        if content.is_empty() {
            return None;
        }
        let indent = line.len() - line.trim_start().len();
        let is_item = content.starts_with('-');
        let block = |name: &Name| Following::Block { name: name.clone(), is_list: is_item };
        let mut is_assigned = false;
        let (secret, following) = match std::mem::replace(&mut self.following, Following::Nothing) {
            Following::Rest => (Some(None), Following::Rest),
            Following::Quoted { quote, quotes } => {
                let quotes = quotes + unescaped(line, quote);
                // An even number of quotes closes the value only at the end of a line: a pair within the value does
                // not.
                let is_end = quotes.is_multiple_of(2) && closes(line, quote);
                (Some(None), if is_end { Following::Nothing } else { Following::Quoted { quote, quotes } })
            }
            Following::Value(_) if let Some(quote) = fence(content) => {
                (Some(None), Following::Quoted { quote, quotes: 1 })
            }
            Following::Value(name) if is_underline(content) => (None, Following::Value(name)),
            Following::Section(mut section) => match section.next(line) {
                SectionLine::Value => {
                    is_assigned = true;
                    (Some(Some(section.name.clone())), Following::Section(section))
                }
                SectionLine::Other => (Some(None), Following::Section(section)),
                SectionLine::Header => (None, self.behind(line)),
            },
            Following::Value(name) if only_begins_a_secret(content) => (Some(None), Following::Value(name)),
            Following::Value(name) if content.ends_with('\\') => {
                (Some(Some(name.name.clone())), Following::Value(name))
            }
            Following::Value(name) => (Some(Some(name.name.clone())), block(&name)),
            Following::FirstOfList(name) if is_item => (Some(Some(name.name.clone())), block(&name)),
            Following::Block { name, is_list }
                if indent > name.column || is_list && is_item && indent == name.column =>
            {
                (Some(Some(name.name.clone())), Following::Block { name, is_list })
            }
            Following::Token if may_be_secret(content.split_whitespace().next().unwrap_or_default()) => {
                (Some(None), Following::Nothing)
            }
            Following::Nothing | Following::FirstOfList(_) | Following::Block { .. } | Following::Token => {
                (None, self.behind(line))
            }
        };
        self.following = following;
        match is_of_key {
            true => Some(SecretLine { name: None, is_assigned: false }),
            false => secret.map(|name| SecretLine { name, is_assigned }),
        }
    }

    /// What a line that is no value itself says of the next one.
    fn behind(&self, line: &str) -> Following {
        let is_plural = |name: &str| singular(name).is_some_and(self.is_secret);
        if let Some(name) = section_of_secrets(line, self.is_secret) {
            return Following::Section(SectionOfSecrets::of(name, line));
        }
        if opens_a_secret(line, self.is_secret) {
            return Following::Rest;
        }
        if let Some(quote) = unclosed_quote(line, self.is_secret) {
            return Following::Quoted { quote, quotes: 1 };
        }
        if let Some(found) = named_on_the_next_line(line, self.is_secret) {
            return Following::Value(Name::of(found));
        }
        if let Some(found) = named_on_the_next_line(line, &is_plural) {
            let name = singular(found.name).unwrap_or(found.name);
            return Following::FirstOfList(Name::of(NameInLine { name, ..found }));
        }
        if let Some(found) = named_at_start(line, self.is_secret) {
            return Following::Block { name: Name::of(found), is_list: false };
        }
        if ends_with_bearer(line) { Following::Token } else { Following::Nothing }
    }
}

/// A line with something else in place of all but the whitespace around it.
pub(super) fn with_content(line: &str, content: &str) -> String {
    let lead = line.len() - line.trim_start().len();
    format!("{}{content}{}", &line[..lead], &line[line.trim_end().len().max(lead)..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{STARS, is_secret};

    /// The text with stars in place of the lines that are secret because of others.
    fn shown(text: &str) -> String {
        let mut lines = SecretLines::of(&is_secret);
        let shown = text.lines().map(|line| match lines.next(line) {
            Some(_) => with_content(line, STARS),
            None => line.to_owned(),
        });
        shown.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn lines_after_the_name_of_a_secret_are_found() {
        for (text, expected) in [
            ("Dear Bob\nPassword:\nhunter2\nbye", "Dear Bob\nPassword:\n***\nbye"),
            ("Password:\n\n  hunter2\nbye", "Password:\n\n  ***\nbye"),
            ("password: |\n  hun\n  ter2\nb: 1", "password: |\n  ***\n  ***\nb: 1"),
            ("- password: |\n    hun\n\n    ter2\n  b: 1", "- password: |\n    ***\n\n    ***\n  b: 1"),
            ("  password:\n  hunter2\n  b: 1", "  password:\n  ***\n  b: 1"),
            ("\"password\": {\n \"v\": \"hunter2\"\n}", "\"password\": {\n ***\n***"),
            ("\"password\":\n  \"hunter2\",\n\"b\": 1", "\"password\":\n  ***\n\"b\": 1"),
            ("Authorization: Bearer\n hunter2\nB: 1", "Authorization: Bearer\n ***\nB: 1"),
            ("Authorization: Basic abc\n hunter2\nB: 1", "Authorization: Basic abc\n ***\nB: 1"),
            ("api_key=\\\nhunter2\nb=1", "api_key=\\\n***\nb=1"),
            ("secrets:\n  - hunter2\n  - hunter3\nb:\n  - 1", "secrets:\n  ***\n  ***\nb:\n  - 1"),
            ("tokens:\n- name: a\n  value: hunter2\n- b\nc: 1", "tokens:\n***\n  ***\n***\nc: 1"),
            ("pins:\n  - 1234\nb: 1", "pins:\n  ***\nb: 1"),
            ("sent as Bearer\nhunter2\nb", "sent as Bearer\n***\nb"),
            ("Password\n--------\nhunter2\nbye", "Password\n--------\n***\nbye"),
            ("Password (case sensitive):\nhunter2\nbye", "Password (case sensitive):\n***\nbye"),
            ("Password (a) (b):\nhunter2\nbye", "Password (a) (b):\n***\nbye"),
            ("Password [root] (a :) b):\nhunter2\nbye", "Password [root] (a :) b):\n***\nbye"),
            ("Password:\n```\nhun\nter2\n```\nbye", "Password:\n***\n***\n***\n***\nbye"),
            ("Password:\n~~~ text\nhun\nter2\n~~~\nbye", "Password:\n***\n***\n***\n***\nbye"),
            ("Password: ```\nhun\nter2\n```\nbye", "Password: ```\n***\n***\n***\nbye"),
            ("db.password = abc\\\nhunter2\nb = 1", "db.password = abc\\\n***\nb = 1"),
            ("db.password: abc\n    hunter2\nb: 1", "db.password: abc\n    ***\nb: 1"),
            ("  app/db[0].password: abc\n    hunter2\n  b: 1", "  app/db[0].password: abc\n    ***\n  b: 1"),
            ("export PASSWORD=abc\\\nhunter2\nexport B=1", "export PASSWORD=abc\\\n***\nexport B=1"),
            ("run --a --token=abc\\\nhunter2\nb=1", "run --a --token=abc\\\n***\nb=1"),
            ("[secrets]\npins = [\n  [1_234]\n]\npay = \"a\"\n[b]", "[secrets]\n***\n  ***\n***\n***\n[b]"),
            (
                "[secrets]\na = [\n[true],\n[1.5],\n[ -1 ]\n]\nb = c\n[b]",
                "[secrets]\n***\n***\n***\n***\n***\n***\n[b]",
            ),
            ("[secrets]\na = [ # ]\n\"]\", ']',\n[0x1F]\n]\n[b]", "[secrets]\n***\n***\n***\n***\n[b]"),
            ("[tokens]\nlist =\n  a\n  [b]\n  hunter2\n[b]", "[tokens]\n***\n  ***\n  ***\n  ***\n[b]"),
            ("  [tokens]\n  a = b\n[b]\nc = 1", "  [tokens]\n  ***\n[b]\nc = 1"),
            (
                "[secrets]\nk = '''\"\"\"a\"\"\"\n[x]\n'''\na = 'x' # it's [\n[b]\nc = 1",
                "[secrets]\n***\n***\n***\n***\n[b]\nc = 1",
            ),
            ("[secrets]\nk = it's [\n[x]\n]", "[secrets]\n***\n***\n***"),
            (
                "[app.secrets]\n# old\npay = \"hunter2\"\n\nlist = [\n  \"hunter3\",\n]\n[server]\nport = 1",
                "[app.secrets]\n***\n***\n\n***\n  ***\n***\n[server]\nport = 1",
            ),
            ("[secrets] # prod\npay = hunter2\nfoo: hunter3\nbye\nb = 1", "[secrets] # prod\n***\n***\n***\n***"),
            (
                "[secrets]\npay = \"\"\"\nhunter2\n[a]\n\"\"\"\nlist = [\n\"hunter3\",\n[\"a\"]\n]\n[a] ; b\nn = 1",
                "[secrets]\n***\n***\n***\n***\n***\n***\n***\n***\n[a] ; b\nn = 1",
            ),
            (
                "[secrets]\npay[] = a\naws/prod = b\nuser@host = c\n${PAY} = d\nset x := e\na\\\nb\n[c]\nd = 1",
                "[secrets]\n***\n***\n***\n***\n***\n***\n***\n[c]\nd = 1",
            ),
            ("[secrets]\na = 1\n[tokens]\nb = 2\n[c]\nd = 3", "[secrets]\n***\n[tokens]\n***\n[c]\nd = 3"),
            ("password=a\\\nhun\\\nter2\nb=1", "password=a\\\n***\n***\nb=1"),
            ("password: \"a\nx \"y\"\nhunter2\"\nb: 1", "password: \"a\n***\n***\nb: 1"),
            ("password: \"a \\\"\nhunter2\"\nb: 1", "password: \"a \\\"\n***\nb: 1"),
            ("password: \"hun\nter2\"\nb: 1", "password: \"hun\n***\nb: 1"),
            ("{\"pin\": \"\"\"\n12\n34\"\"\",\n\"b\": 1}", "{\"pin\": \"\"\"\n***\n***\n\"b\": 1}"),
            (
                "private_key:\n-----BEGIN PRIVATE KEY-----\nMHcC\n-----END PRIVATE KEY-----\nb: 1",
                "private_key:\n***\n***\n-----END PRIVATE KEY-----\nb: 1",
            ),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn other_lines_stay() {
        for text in [
            "Your password has expired\n  on Monday",
            "Your token: x\n  total: 5",
            "- password: x\n  user: bob",
            "token: x\ntotal: 5",
            "pins:\n  red and blue",
            "the bearer\nof news",
            "[session]\ntimeout = 30",
            "Orders\n------\n17",
            "password: 'tis\nnot so",
            "password: \"x\"\nb: 1",
            "total:\n  5",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
