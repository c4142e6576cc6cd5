//! PURE. The routes that servers may find in an unusual path.
//!
//! The question it answers: "to which routes could some server lead this path, whatever it decodes, drops, merges and
//! resolves?" A server may or may not:
//!
//! - read `%2F`, `%5C` and the backslash as a slash,
//! - drop the parameters of segments, before or after decoding,
//! - merge repeated slashes, and drop a slash at the end,
//! - resolve dot segments, before or after merging, with or without `%2e` as a dot,
//! - decode a second time, and `%uXXXX`,
//! - end the path at an encoded NUL, CR or LF.
//!
//! The templates form a tree of segments, which is walked with the segments of the path; each step keeps all states in
//! the tree to which any combination of these choices leads. Always true: every such combination is covered; the work
//! is a few passes over the path for each tree of the request's method, and at most [`STEPS_MAX`] steps in all,
//! whatever the path. A path that needs more is an error.

use std::collections::HashMap;

use http::Method;

use super::RouteMatch;
use super::conventions::PathConventions;
use super::exact_text::exact_text;
use super::matcher::host_name;
use super::path::{UnusualParts, encoded, match_key};

/// How many steps the walks of one path through all trees of [`RouteTrees`] may take together. A path of some twenty
/// segments takes about fifty; only a path that was made to be expensive takes more than this.
pub const STEPS_MAX: u32 = 256;

/// A path that has more readings than are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyReadings;

/// The templates of routes as trees, by host and method.
pub struct RouteTrees {
    /// Whether servers are considered that ignore case, and servers that ignore suffixes of segments.
    ignores: (bool, bool),
    any_host: Vec<(Method, Trie)>,
    hosts: HashMap<Box<str>, Vec<(Method, Trie)>>,
}

/// A tree of segments of templates; the first node is the root.
struct Trie(Vec<Node>);

#[derive(Default)]
struct Node {
    parent: usize,
    literals: HashMap<Box<str>, usize>,
    parameter: Option<usize>,
    is_parameter: bool,
    /// The routes whose template ends here.
    routes: Vec<usize>,
}

/// The state after a reading of the first segments of a path: a node of the tree, and what is needed to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TrieState {
    node: usize,
    /// How many segments follow those that lead to the node. They match nothing, but dot segments may remove them.
    extra: usize,
    /// Whether parameters began in the last segment; they extend to the next plain slash.
    in_parameters: bool,
}

impl RouteTrees {
    /// Trees without routes. The routes have these conventions; if they are strict, more servers are considered.
    pub fn new(conventions: &PathConventions) -> Self {
        let PathConventions { strict, .. } = *conventions;
        let ignores = (strict || conventions.ignores_case(), strict || conventions.strips_suffix());
        Self { ignores, any_host: Vec::new(), hosts: HashMap::new() }
    }

    /// Adds a route.
    pub fn insert(&mut self, matches: &RouteMatch, index: usize) {
        let trees = match &matches.host {
            Some(host) => self.hosts.entry(host.as_str().into()).or_default(),
            None => &mut self.any_host,
        };
        let also_head = (matches.method == Method::GET).then_some(Method::HEAD);
        for method in [Some(matches.method.clone()), also_head].into_iter().flatten() {
            let at = trees.iter().position(|(known, _)| *known == method).unwrap_or_else(|| {
                trees.push((method, Trie(vec![Node::default()])));
                trees.len() - 1
            });
            trees[at].1.insert(&matches.path, index, self.ignores.0);
        }
    }

    /// The routes that some server may find in a path, by the index under which they were inserted. `unusual` is what
    /// is unusual in the path.
    ///
    /// # Errors
    /// The path has too many readings.
    pub fn routes_in(
        &self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        unusual: UnusualParts,
    ) -> Result<Vec<usize>, TooManyReadings> {
        let mut found = Vec::new();
        let of_host = match host {
            Some(host) if !self.hosts.is_empty() => self.hosts.get(host_name(host).to_ascii_lowercase().as_str()),
            _ => None,
        };
        let all = self.any_host.iter().chain(of_host.into_iter().flatten());
        let mut trees = all.filter(|(known, _)| known == method).map(|(_, tree)| tree).peekable();
        if trees.peek().is_none() {
            return Ok(found);
        }
        // The path after the first decoding by a server that decodes twice.
        let twice =
            (unusual.has(UnusualParts::DOUBLE) || unusual.has(UnusualParts::PERCENT)).then(|| decode_once(path));
        let mut steps = STEPS_MAX;
        for tree in trees {
            tree.walk(path.as_bytes(), self.ignores, &mut steps, &mut found)?;
            if let Some(decoded) = &twice {
                tree.walk(decoded, self.ignores, &mut steps, &mut found)?;
            }
        }
        Ok(found)
    }
}

impl Trie {
    fn insert(&mut self, template: &str, index: usize, ignores_case: bool) {
        let mut node = 0;
        for segment in template.split('/').skip(1) {
            let is_parameter = segment.starts_with('{');
            let mut literal = match_key(segment);
            if ignores_case {
                literal = literal.to_lowercase().into();
            }
            let known = match is_parameter {
                true => self.0[node].parameter,
                false => self.0[node].literals.get(&*literal).copied(),
            };
            node = known.unwrap_or_else(|| {
                let child = self.0.len();
                self.0.push(Node { parent: node, is_parameter, ..Node::default() });
                match is_parameter {
                    true => self.0[node].parameter = Some(child),
                    false => drop(self.0[node].literals.insert(literal.into(), child)),
                }
                child
            });
        }
        self.0[node].routes.push(index);
        if template == "/" {
            // A path of which nothing is left leads to the root too.
            self.0[0].routes.push(index);
        }
    }

    /// Adds the routes to which a reading of this path leads.
    fn walk(
        &self,
        path: &[u8],
        ignores: (bool, bool),
        steps: &mut u32,
        found: &mut Vec<usize>,
    ) -> Result<(), TooManyReadings> {
        // How many later segments may remove one before them.
        let mut removals = segments(path).filter(|segment| may_be_parent(segment.bytes)).count();
        let mut states = vec![TrieState { node: 0, extra: 0, in_parameters: false }];
        let mut next: Vec<TrieState> = Vec::new();
        let mut was_empty = false;
        for segment in segments(path) {
            // One slash more or less changes nothing, unless later dot segments may remove what is between the slashes.
            let is_empty = segment.after_slash && segment.bytes.is_empty();
            if is_empty && was_empty && removals == 0 {
                continue;
            }
            was_empty = is_empty;
            removals -= usize::from(may_be_parent(segment.bytes));
            let texts = SegmentTexts::of(segment.bytes, ignores);
            let mut add = |state: TrieState| {
                // Dropped if later dot segments are too few to remove the extra segments: such a state can match no
                // template.
                if state.extra <= removals && !next.contains(&state) {
                    next.push(state);
                }
            };
            for state in &states {
                *steps = steps.checked_sub(1).ok_or(TooManyReadings)?;
                self.step(*state, &segment, &texts, &mut add);
            }
            std::mem::swap(&mut states, &mut next);
            next.clear();
            if texts.may_end_path {
                self.add_routes(&states, found);
            }
            if states.is_empty() {
                return Ok(());
            }
        }
        self.add_routes(&states, found);
        Ok(())
    }

    /// Adds the states to which a segment may lead from one state.
    fn step(&self, from: TrieState, segment: &PathSegment<'_>, texts: &SegmentTexts, add: &mut impl FnMut(TrieState)) {
        let node = &self.0[from.node];
        let parameter = node.parameter.map(|child| TrieState { node: child, extra: 0, in_parameters: false });
        if !segment.after_slash {
            if from.in_parameters {
                return add(from);
            }
            // The separator before the segment may be text; then the segment and the one before it are one segment.
            match from {
                TrieState { extra: 1.., .. } => add(from),
                TrieState { node: 0, .. } => add(TrieState { extra: 1, ..from }),
                _ => {
                    if node.is_parameter {
                        add(from);
                    }
                    add(TrieState { node: node.parent, extra: 1, in_parameters: false });
                }
            }
            if from.extra == 0 {
                parameter.into_iter().for_each(&mut *add);
            }
        }
        let from = TrieState { in_parameters: false, ..from };
        let mut add = |state: TrieState| {
            add(state);
            if texts.has_parameters {
                add(TrieState { in_parameters: true, ..state });
            }
        };
        if texts.is_dots(0) || texts.is_dots(1) {
            add(from);
        }
        if texts.is_dots(2) {
            add(match from.extra {
                0 => TrieState { node: node.parent, ..from },
                extra => TrieState { extra: extra - 1, ..from },
            });
        }
        add(TrieState { extra: from.extra + 1, ..from });
        if from.extra == 0 {
            let literals = texts.all.iter().filter_map(|text| node.literals.get(text.as_str()));
            literals.for_each(|child| add(TrieState { node: *child, ..from }));
            if !segment.bytes.is_empty() {
                parameter.into_iter().for_each(add);
            }
        }
    }

    fn add_routes(&self, states: &[TrieState], found: &mut Vec<usize>) {
        for state in states.iter().filter(|state| state.extra == 0) {
            for index in &self.0[state.node].routes {
                if !found.contains(index) {
                    found.push(*index);
                }
            }
        }
    }
}

/// What lies between two separators of a path, some of which may be text.
struct PathSegment<'p> {
    bytes: &'p [u8],
    /// Whether the separator before it is a plain slash.
    after_slash: bool,
}

/// The smallest pieces that a server may find in a path that begins with a slash.
fn segments(path: &[u8]) -> impl Iterator<Item = PathSegment<'_>> {
    let mut rest = path.get(1..);
    let mut after_slash = true;
    std::iter::from_fn(move || {
        let bytes = rest?;
        let mut at = 0;
        let separator = loop {
            match bytes.get(at) {
                None => break None,
                Some(b'/') => break Some((1, true)),
                Some(b'\\') => break Some((1, false)),
                Some(b'%') if matches!(encoded(bytes, at), Some(b'/' | b'\\')) => break Some((3, false)),
                Some(_) => at += 1,
            }
        };
        let segment = PathSegment { bytes: &bytes[..at], after_slash };
        rest = separator.map(|(length, is_slash)| {
            after_slash = is_slash;
            &bytes[at + length..]
        });
        Some(segment)
    })
}

/// Whether a segment begins with two dots that are the whole segment, or all that precedes its parameters or the path's
/// end. An encoding after the dots counts as one of these ends.
fn may_be_parent(mut segment: &[u8]) -> bool {
    for _ in 0..2 {
        segment = match segment {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
    }
    matches!(segment, [] | [b';' | b'%' | 0 | b'\r' | b'\n', ..])
}

/// The texts as which a segment may be read.
struct SegmentTexts {
    /// The decoded texts, also cut where the segment's parameters, or an end of the path, begin.
    all: Vec<String>,
    has_parameters: bool,
    /// Whether the segment has a byte at which some servers end the path.
    may_end_path: bool,
}

impl SegmentTexts {
    fn of(segment: &[u8], (ignores_case, ignores_suffix): (bool, bool)) -> Self {
        let (mut has_parameters, mut may_end_path) = (false, false);
        if segment.is_empty() {
            return Self { all: vec![String::new()], has_parameters, may_end_path };
        }
        let mut decoded = Vec::with_capacity(segment.len());
        let mut cuts = Vec::new();
        let mut at = 0;
        while let Some(&byte) = segment.get(at) {
            let (byte, length) = match (byte == b'%').then(|| encoded(segment, at)).flatten() {
                Some(byte) => (byte, 3),
                None => (byte, 1),
            };
            let (is_parameters, is_end) = (byte == b';', matches!(byte, 0 | b'\r' | b'\n'));
            if (is_parameters && !has_parameters) || (is_end && !may_end_path) {
                cuts.push(decoded.len());
            }
            has_parameters |= is_parameters;
            may_end_path |= is_end;
            decoded.push(byte);
            at += length;
        }
        if ignores_suffix {
            let is_dot = |byte: &u8| *byte == b'.';
            let ends = [decoded.iter().position(is_dot), decoded.iter().rposition(is_dot)];
            cuts.extend(ends.into_iter().flatten().filter(|end| *end > 0));
        }
        let text = |end| {
            let text = exact_text(&decoded[..end]);
            if ignores_case { text.to_lowercase() } else { text }
        };
        let all = [decoded.len()].into_iter().chain(cuts).map(text).collect();
        Self { all, has_parameters, may_end_path }
    }

    /// Whether the segment may be read as exactly so many dots.
    fn is_dots(&self, dots: usize) -> bool {
        self.all.iter().any(|text| *text == ["", ".", ".."][dots])
    }
}

/// The path after the first decoding by a server that decodes twice. Encoded separators stay as they are, because each
/// may be read as text too.
fn decode_once(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (byte, length) = match (byte == b'%').then(|| encoded(bytes, at)).flatten() {
            Some(b'/' | b'\\') | None => match utf16_unit(bytes, at) {
                Some(ascii) => (ascii, 6),
                None => (byte, 1),
            },
            Some(byte) => (byte, 3),
        };
        decoded.push(byte);
        at += length;
    }
    decoded
}

/// The ASCII character that `%uXXXX` at an index stands for, in servers that know this form; else `None`.
fn utf16_unit(bytes: &[u8], at: usize) -> Option<u8> {
    let [b'%', b'u' | b'U', b'0', b'0', high, low] = bytes.get(at..at + 6)? else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok().filter(u8::is_ascii)
}
