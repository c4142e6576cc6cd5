//! Import cycles between the files of one room.
//!
//! A file imports another when it names, in a `use` or in a path, something that the other defines. A re-export is
//! followed to the file that defines the name, and is not an import of its own; neither is `mod child;`, nor an
//! imported module: what is reached through it counts. Code under `#[cfg(test)]` and files of tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One lexical element of Rust source; text and comments are dropped.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    PathSeparator,
    Punctuation(char),
}

/// One name that a `use` brings into a module.
struct Import {
    /// The path that is imported, without its alias.
    path: Vec<String>,
    /// The name here; `None` for `*`.
    name: Option<String>,
    /// `pub use`, in whatever form.
    is_reexport: bool,
}

/// What one module (a file, or a `mod name { … }` within it) defines and names.
#[derive(Default)]
struct Module {
    file: PathBuf,
    items: BTreeSet<String>,
    children: BTreeSet<String>,
    imports: Vec<Import>,
    /// Paths outside `use`, of one name or more.
    paths: BTreeSet<Vec<String>>,
}

/// Modules by their path from the crate's root.
#[derive(Default)]
pub struct Sources {
    modules: BTreeMap<Vec<String>, Module>,
    /// Modules that are declared under `#[cfg(test)]`.
    tests: BTreeSet<Vec<String>>,
}

impl Sources {
    /// Adds a file of `src` by its path within it.
    pub fn add(&mut self, file: &Path, text: &str) {
        let mut path: Vec<String> =
            file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if path.last().is_some_and(|last| last == "mod") {
            path.pop();
        }
        let (tokens, tests) = without_tests(&tokens(text));
        self.tests.extend(tests.into_iter().map(|name| path.iter().cloned().chain([name]).collect()));
        self.read(path, file, &tokens);
    }

    fn read(&mut self, path: Vec<String>, file: &Path, tokens: &[Token]) {
        let mut module = Module { file: file.to_path_buf(), ..Module::default() };
        let mut depth = 0usize;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                Token::Punctuation('{') => depth += 1,
                Token::Punctuation('}') => depth = depth.saturating_sub(1),
                // `use<…>` in a return type is no import.
                Token::Name(word) if word == "use" && tokens.get(at + 1) != Some(&Token::Punctuation('<')) => {
                    let end = at + tokens[at..].iter().position(|t| *t == Token::Punctuation(';')).unwrap_or(0);
                    let is_reexport = depth == 0 && is_public(&tokens[..at]);
                    read_use(&tokens[at + 1..end], &[], is_reexport, &mut module.imports);
                    at = end;
                }
                Token::Name(word) if word == "mod" && depth == 0 => {
                    if let (Some(Token::Name(name)), Some(next)) = (tokens.get(at + 1), tokens.get(at + 2)) {
                        module.children.insert(name.clone());
                        if *next == Token::Punctuation('{') {
                            let end = group_end(tokens, at + 2);
                            let child = path.iter().chain([name]).cloned().collect();
                            self.read(child, file, &tokens[at + 3..end]);
                            at = end;
                        }
                    }
                }
                Token::Name(word) if depth == 0 && defines(word) => {
                    if let Some(Token::Name(name)) = tokens.get(at + 1) {
                        module.items.insert(name.clone());
                    }
                }
                Token::Name(_) if at == 0 || tokens[at - 1] != Token::PathSeparator => {
                    let (whole, end) = read_path(tokens, at);
                    module.paths.insert(whole);
                    at = end;
                }
                _ => {}
            }
            at += 1;
        }
        self.modules.insert(path, module);
    }

    /// The file that defines what a path names within a module; `None` for what is not of this crate, and for a module.
    fn definition(
        &self,
        from: &[String],
        path: &[String],
        asked: &mut BTreeSet<(Vec<String>, String)>,
    ) -> Option<&Path> {
        let (mut module, mut rest) = self.start(from, path, asked)?;
        loop {
            let (name, tail) = rest.split_first()?;
            let here = self.modules.get(&module)?;
            if here.children.contains(name) && !(tail.is_empty() && here.items.contains(name)) {
                module.push(name.clone());
                rest = tail;
                continue;
            }
            if here.items.contains(name) {
                return Some(&here.file);
            }
            if !asked.insert((module.clone(), name.clone())) {
                return None;
            }
            for import in &here.imports {
                let target: Vec<String> = match &import.name {
                    Some(known) if known == name => import.path.iter().chain(tail).cloned().collect(),
                    Some(_) => continue,
                    None => import.path.iter().chain(rest).cloned().collect(),
                };
                if let Some(file) = self.definition(&module, &target, asked) {
                    return Some(file);
                }
            }
            return None;
        }
    }

    /// Resolves the start of a path (`crate`, `self`, `super`, a child, or a name of the module). Returns the module in
    /// which the rest of the path is to be looked up, and that rest.
    fn start<'p>(
        &self,
        from: &[String],
        path: &'p [String],
        asked: &mut BTreeSet<(Vec<String>, String)>,
    ) -> Option<(Vec<String>, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut module = from.to_vec();
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
                while rest.first().is_some_and(|next| next == "super") {
                    module.pop();
                    rest = &rest[1..];
                }
            }
            // A single name is this module's own, a child, or imported: `definition` looks for it here.
            name if self.modules.get(from)?.children.contains(name) => return Some((module, path)),
            name => {
                let here = self.modules.get(from)?;
                let known = here.items.contains(name)
                    || here.imports.iter().any(|import| import.name.as_ref().is_none_or(|known| known == name));
                return (known && !asked.contains(&(module.clone(), name.to_owned()))).then_some((module, path));
            }
        }
        // The crate's root is not in `modules`: its children are the rooms.
        if module.is_empty() {
            let (room, tail) = rest.split_first()?;
            module.push(room.clone());
            rest = tail;
        }
        Some((module, rest))
    }

    /// Which files each file imports, within its room.
    fn imports(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut edges: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for (path, module) in &self.modules {
            if (1..=path.len()).any(|end| self.tests.contains(&path[..end])) {
                continue;
            }
            let used: BTreeSet<&String> = module.paths.iter().filter_map(|path| path.first()).collect();
            let named = module.imports.iter().filter(|import| match &import.name {
                Some(name) => !import.is_reexport || used.contains(name),
                None => false, // what comes through `*` is found by the paths that name it
            });
            let named = named.map(|import| &import.path).chain(&module.paths);
            for target in named {
                if let Some(file) = self.definition(path, target, &mut BTreeSet::new())
                    && file != module.file
                    && room(file) == room(&module.file)
                {
                    edges.entry(&module.file).or_default().insert(file);
                }
            }
        }
        edges
    }

    /// The cycles of each room: sets of files each of which reaches every other.
    pub fn cycles(&self) -> BTreeMap<String, Vec<BTreeSet<PathBuf>>> {
        let edges = self.imports();
        let reached: BTreeMap<&Path, BTreeSet<&Path>> = edges.keys().map(|file| (*file, reach(&edges, file))).collect();
        let mut found: BTreeMap<String, BTreeSet<BTreeSet<PathBuf>>> = BTreeMap::new();
        for (file, there) in &reached {
            let back = |other: &&Path| reached.get(*other).is_some_and(|from| from.contains(file));
            let cycle: BTreeSet<PathBuf> = there.iter().copied().filter(back).map(Path::to_path_buf).collect();
            if !cycle.is_empty() {
                found.entry(room(file)).or_default().insert(cycle);
            }
        }
        found.into_iter().map(|(room, cycles)| (room, cycles.into_iter().collect())).collect()
    }

    /// The imports between the files of a cycle, for people who have to break it.
    pub fn within(&self, cycle: &BTreeSet<PathBuf>) -> Vec<String> {
        let edges = self.imports();
        let inside = edges.iter().filter(|(file, _)| cycle.contains(**file));
        inside
            .map(|(file, there)| {
                let there = there.iter().filter(|other| cycle.contains(**other));
                let there: Vec<String> = there.map(|other| other.display().to_string()).collect();
                format!("{} imports {}", file.display(), there.join(", "))
            })
            .collect()
    }
}

/// The room of a file: the first part of its path.
fn room(file: &Path) -> String {
    let first = file.iter().next().unwrap_or_default().to_string_lossy().into_owned();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

/// Every file that is reached from a file by one or more imports.
fn reach<'a>(edges: &BTreeMap<&'a Path, BTreeSet<&'a Path>>, from: &Path) -> BTreeSet<&'a Path> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&Path> = vec![from];
    while let Some(file) = open.pop() {
        for next in edges.get(file).into_iter().flatten() {
            if found.insert(*next) {
                open.push(*next);
            }
        }
    }
    found
}

fn defines(word: &str) -> bool {
    matches!(word, "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" | "macro_rules")
}

/// Whether the tokens before an item end in `pub` or `pub(…)`.
fn is_public(before: &[Token]) -> bool {
    let is = |token: Option<&Token>, word: &str| matches!(token, Some(Token::Name(name)) if name == word);
    if before.last() != Some(&Token::Punctuation(')')) {
        return is(before.last(), "pub");
    }
    let open = before.iter().rposition(|token| *token == Token::Punctuation('('));
    open.is_some_and(|open| open > 0 && is(before.get(open - 1), "pub"))
}

/// The names of a `use` tree, each with its path.
fn read_use(tree: &[Token], prefix: &[String], is_reexport: bool, into: &mut Vec<Import>) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < tree.len() {
        match &tree[at] {
            Token::Name(word) if word == "as" => {
                let Some(Token::Name(alias)) = tree.get(at + 1) else { return };
                into.push(Import { path, name: Some(alias.clone()), is_reexport });
                return;
            }
            Token::Name(word) if word == "self" && !path.is_empty() => {}
            Token::Name(word) => path.push(word.clone()),
            Token::Punctuation('*') => {
                into.push(Import { path, name: None, is_reexport });
                return;
            }
            Token::Punctuation('{') => {
                for part in list(&tree[at + 1..group_end(tree, at)]) {
                    read_use(part, &path, is_reexport, into);
                }
                return;
            }
            Token::PathSeparator | Token::Punctuation(_) => {}
        }
        at += 1;
    }
    if let Some(name) = path.last().cloned() {
        into.push(Import { path, name: Some(name), is_reexport });
    }
}

/// The parts of a list between braces.
fn list(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Punctuation('{') => depth += 1,
            Token::Punctuation('}') => depth = depth.saturating_sub(1),
            Token::Punctuation(',') if depth == 0 => {
                parts.push(&tokens[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[begin..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Reads `a::b::c` from its first name on; returns the path and the position of its last name.
fn read_path(tokens: &[Token], at: usize) -> (Vec<String>, usize) {
    let (mut path, mut end) = (Vec::new(), at);
    while let Some(Token::Name(name)) = tokens.get(end) {
        path.push(name.clone());
        match (tokens.get(end + 1), tokens.get(end + 2)) {
            (Some(Token::PathSeparator), Some(Token::Name(_))) => end += 2,
            _ => break,
        }
    }
    (path, end)
}

/// Where the group ends that opens here.
fn group_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Punctuation('{' | '(' | '[') => depth += 1,
            Token::Punctuation('}' | ')' | ']') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// The tokens without the items under `#[cfg(test)]`, and the names of the modules among these items.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let name = |text: &str| Token::Name(text.into());
    let test = [
        Token::Punctuation('#'),
        Token::Punctuation('['),
        name("cfg"),
        Token::Punctuation('('),
        name("test"),
        Token::Punctuation(')'),
    ];
    let (mut remaining, mut modules) = (Vec::with_capacity(tokens.len()), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].starts_with(&test) {
            remaining.push(tokens[at].clone());
            at += 1;
            continue;
        }
        while tokens.get(at) == Some(&Token::Punctuation('#')) {
            at = group_end(tokens, at + 1) + 1;
        }
        let end = item_end(tokens, at);
        let item = &tokens[at..end.min(tokens.len())];
        if let Some(at) = item.iter().take(6).position(|token| *token == name("mod"))
            && let Some(Token::Name(module)) = item.get(at + 1)
        {
            modules.push(module.clone());
        }
        at = end + 1;
    }
    (remaining, modules)
}

/// The last token of the item or statement that begins here.
fn item_end(tokens: &[Token], begin: usize) -> usize {
    let is_use =
        tokens[begin..].iter().take_while(|t| **t != Token::Punctuation('{')).any(|t| *t == Token::Name("use".into()));
    let mut at = begin;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Punctuation(';') => return at,
            Token::Punctuation('{') if !is_use => return group_end(tokens, at),
            Token::Punctuation('{' | '(' | '[') => at = group_end(tokens, at),
            Token::Punctuation('}' | ')' | ']') => return at - 1, // a field, or the last expression of a block
            _ => {}
        }
        at += 1;
    }
    at
}

fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let first = bytes[at];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else if let Some(end) = literal_end(rest) {
            at += end;
        } else if rest.starts_with("::") {
            found.push(Token::PathSeparator);
            at += 2;
        } else if first.is_ascii_alphanumeric() || first == b'_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if !first.is_ascii_digit() {
                found.push(Token::Name(rest[..end].to_owned()));
            }
            at += end;
        } else {
            let sign = rest.chars().next().unwrap_or(' ');
            if !sign.is_whitespace() {
                found.push(Token::Punctuation(sign));
            }
            at += sign.len_utf8();
        }
    }
    found
}

/// The length of the text, character or lifetime that begins here.
fn literal_end(rest: &str) -> Option<usize> {
    let plain = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - plain.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = plain.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inside = raw[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = inside.find(&close)? + close.len();
        return Some(prefix + 1 + hashes + 1 + end);
    }
    let quote = plain.chars().next()?;
    if quote == '\'' {
        let mut inside = plain[1..].chars();
        let (one, two) = (inside.next()?, inside.next());
        if one != '\\' && two != Some('\'') {
            // A lifetime: its name is of no interest.
            let end = plain[1..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(plain.len(), |end| end + 1);
            return Some(prefix + end);
        }
    } else if quote != '"' {
        return None;
    }
    let mut escaped = false;
    for (at, c) in plain.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(prefix + at + c.len_utf8()),
            _ => {}
        }
    }
    Some(rest.len())
}

/// The cycles of a few files of one room, as text.
#[cfg(test)]
fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
    let mut sources = Sources::default();
    for (file, text) in files {
        sources.add(Path::new(file), text);
    }
    let cycles = sources.cycles().into_values().flatten();
    cycles.map(|cycle| cycle.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_cycle_is_found_in_every_form_of_import() {
    let forms = [
        ("use super::b::B; pub struct A;", "use super::a::A; pub struct B;"),
        (
            "use crate::room::b::{self, other}; pub struct A; fn f() { b::B::new(); }",
            "use super::a; fn g(_: a::A) {} pub struct B;",
        ),
        ("pub struct A(super::b::B);", "use crate::{other, room::a::A as Alias}; pub struct B;"),
        (
            "use super::*; pub struct A; fn f() -> B { \"}\" }",
            "use super::{other::{x, y}, a::A}; pub enum B { /* { */ }",
        ),
        ("use super::B; pub struct A;", "fn f() { use super::A; } pub struct B;"),
    ];
    for (a, b) in forms {
        let root = ("room/mod.rs", "mod a; mod b; pub use a::A; pub(crate) use self::b::B;");
        assert_eq!(cycles_of(&[root, ("room/a.rs", a), ("room/b.rs", b)]), ["room/a.rs room/b.rs"], "{a} | {b}");
    }
}

#[test]
fn a_room_may_import_its_root_or_be_imported_by_it() {
    let down = "mod a; pub use a::A; fn f(_: &A) {}";
    let up = "mod a; pub use a::A; pub struct Shared;";
    let (plain, asks) = ("pub struct A;", "use super::Shared; pub struct A;");
    assert!(cycles_of(&[("room/mod.rs", down), ("room/a.rs", plain)]).is_empty());
    assert!(cycles_of(&[("room/mod.rs", up), ("room/a.rs", asks)]).is_empty(), "a re-export alone is no import");
    let both = format!("{up} fn f(_: &A) {{}}");
    assert_eq!(cycles_of(&[("room/mod.rs", &both), ("room/a.rs", asks)]), ["room/a.rs room/mod.rs"]);
}

#[test]
fn tests_within_a_file_are_left_out() {
    let a = "pub struct A; #[cfg(test)] mod tests { use super::super::b::B; } \
             #[cfg(test)] #[allow(x)] pub fn f<X, Y>(_: super::b::B) {} pub fn g(_: &'static str) { let c = '\\''; }";
    let b = "use super::a::A; pub struct B;";
    assert!(cycles_of(&[("room/mod.rs", "mod a; mod b;"), ("room/a.rs", a), ("room/b.rs", b)]).is_empty());
    let root = "mod a; mod b; #[cfg(test)] pub(crate) mod kit;";
    let (a, kit) = ("use super::kit::Kit; pub struct A;", "use super::a::A; pub struct Kit;");
    assert!(cycles_of(&[("room/mod.rs", root), ("room/a.rs", a), ("room/kit.rs", kit)]).is_empty());
}

#[test]
fn code_outside_tests_is_read() {
    let a = "pub struct A; #[cfg(test)] mod tests { use super::super::b::B; }";
    let b = "use super::a::A; pub struct B;";
    let live = format!("{a} fn h(_: super::b::B) {{}}");
    assert_eq!(cycles_of(&[("room/mod.rs", "mod a; mod b;"), ("room/a.rs", &live), ("room/b.rs", b)]).len(), 1);
}
