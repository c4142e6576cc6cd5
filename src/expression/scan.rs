//! A lexer for CEL: finds the end of `${ … }` in a template, and checks an expression's bounds before a recursive
//! parser sees it. Strings and comments are skipped by CEL's rules.

use super::bounds::{Bounds, TERNARIES_MAX, TOKENS_MAX, UNARY_RUN_MAX};
use super::error::ExpressionError;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A string literal, closed or not.
    Text { closed: bool },
    /// `( [ {`
    Open(char),
    /// `) ] }`
    Close(char),
    /// A name, a keyword or a number.
    Word,
    /// `!` or `-`.
    Unary,
    /// `?`
    Question,
    /// Any other operator or punctuation character.
    Other,
}

/// The tokens of a source, with the byte range of each; whitespace and comments are left out.
pub(super) struct Tokens<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or("")
    }

    /// The length of a string literal that begins here (with its prefix), and whether it is closed.
    fn text(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        let prefix = rest.bytes().take(2).take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B')).count();
        let raw = rest.bytes().take(prefix).any(|b| matches!(b, b'r' | b'R'));
        let body = rest.get(prefix..)?;
        let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let triple = body.len() >= 3 && body.chars().take(3).all(|c| c == quote);
        let width = if triple { 3 } else { 1 };
        let (mut at, mut escaped) = (width, false);
        while let Some(c) = body.get(at..).and_then(|s| s.chars().next()) {
            if escaped {
                escaped = false;
            } else if c == '\\' && !raw {
                escaped = true;
            } else if c == quote && (!triple || body.get(at..at + 3).is_some_and(|s| s.chars().all(|c| c == quote))) {
                return Some((prefix + at + width, true));
            } else if c == '\n' && !triple {
                return Some((prefix + at, false));
            }
            at += c.len_utf8();
        }
        Some((rest.len(), false))
    }
}

impl Iterator for Tokens<'_> {
    type Item = (Token, std::ops::Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let c = self.rest().chars().next()?;
            let start = self.at;
            if c.is_whitespace() {
                self.at += c.len_utf8();
                continue;
            }
            if self.rest().starts_with("//") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                continue;
            }
            if let Some((length, closed)) = self.text() {
                self.at += length;
                return Some((Token::Text { closed }, start..self.at));
            }
            let item = match c {
                '(' | '[' | '{' => Token::Open(c),
                ')' | ']' | '}' => Token::Close(c),
                '!' | '-' => Token::Unary,
                '?' => Token::Question,
                c if is_word(c) => {
                    let word = self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len());
                    self.at += word;
                    return Some((Token::Word, start..self.at));
                }
                _ => Token::Other,
            };
            self.at += c.len_utf8();
            return Some((item, start..self.at));
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Refuses an expression that is too large, too deeply nested or not closed, before the parser sees it.
pub(super) fn check_bounds(source: &str, bounds: &Bounds) -> Result<(), ExpressionError> {
    if source.len() > bounds.bytes_max {
        return Err(ExpressionError::new(format!(
            "the expression has {} bytes; at most {} are allowed (expression_bytes_max)",
            source.len(),
            bounds.bytes_max
        )));
    }
    let at = |range: &std::ops::Range<usize>| characters_before(source, range.start);
    let too_deep = format!(
        "the expression is nested too deeply; {} levels are allowed (expression_depth_max), {UNARY_RUN_MAX} `!` or `-` \
         in a row, and {TERNARIES_MAX} `? :`",
        bounds.depth_max
    );
    // `chain`: how much of the parser's stack the names and operators read so far take (`OPERATOR_COST`, `CHAIN_MAX`).
    let (mut open, mut chain, mut tokens, mut unary, mut ternaries) = (Vec::new(), 0, 0, 0, 0);
    for (item, range) in Tokens::new(source) {
        tokens += 1;
        unary = if item == Token::Unary { unary + 1 } else { 0 };
        match item {
            Token::Text { closed: false } => return Err(ExpressionError::at("a string is not closed", at(&range))),
            Token::Open(c) => {
                open.push((c, chain));
                chain += OPERATOR_COST;
            }
            Token::Close(c) => match open.pop() {
                // The chain within the brackets ends; the call or index itself adds one operator to the outer chain.
                Some((opened, outer)) if closing(opened) == c => chain = outer + OPERATOR_COST,
                _ => return Err(ExpressionError::at(format!("`{c}` closes nothing"), at(&range))),
            },
            Token::Question => ternaries += 1,
            Token::Unary => chain += OPERATOR_COST,
            Token::Text { closed: true } | Token::Word | Token::Other => {
                chain = match &source[range.clone()] {
                    "in" | "+" | "*" | "/" | "%" | "<" | ">" => chain + OPERATOR_COST,
                    "=" => chain + OPERATOR_COST / 2,
                    "." => chain + 1,
                    // The parser builds a balanced tree of `&&` and `||`; a comma begins a new chain.
                    "&" | "|" | "," | ":" => open.last().map_or(0, |(_, outer)| outer + OPERATOR_COST),
                    _ => chain,
                }
            }
        }
        if open.len() > bounds.depth_max || unary > UNARY_RUN_MAX || ternaries > TERNARIES_MAX {
            return Err(ExpressionError::at(too_deep, at(&range)));
        }
        if chain > CHAIN_MAX || tokens > TOKENS_MAX {
            let message = "the expression has too many names and operators; split it with `set` steps";
            return Err(ExpressionError::at(message, at(&range)));
        }
    }
    match open.last() {
        Some((c, _)) => Err(ExpressionError::at(format!("`{c}` is not closed"), source.chars().count())),
        None => Ok(()),
    }
}

/// How much of the parser's stack an operator or a call in a chain takes; `.name` takes 1.
const OPERATOR_COST: usize = 4;
/// The most that one chain may take, with the chains that enclose it.
const CHAIN_MAX: usize = 256;

fn closing(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}

/// The number of characters before a byte.
pub(super) fn characters_before(text: &str, byte: usize) -> usize {
    text.char_indices().take_while(|(at, _)| *at < byte).count()
}

/// The text, cut to a length that fits a message.
pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(57).collect();
    cut.push('…');
    cut
}
