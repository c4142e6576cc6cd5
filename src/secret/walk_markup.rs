//! Finds the secrets in the parts of a text that quotes XML or HTML.
//!
//! Always true: if a part ends with a secret name, its value is the next text (`<b>PIN:</b> 1234`); a value that
//! reaches the end of its part continues after the tags there, because they may be characters of the value
//! (`password: hun<t>er2`). Such a value ends with the line or with the enclosing element.

use std::ops::Range;

use super::assignments::{Assignments, trailing_name, value_after_name};
use super::markup::{Piece, PieceKind, content, escaped, unescaped};
use super::walk::{Edited, SecretWalk};

/// Each method replaces the secrets in its text.
impl SecretWalk<'_, '_> {
    pub(super) fn replace_in_markup(&mut self, text: &str, pieces: &[Piece<'_>]) -> Option<String> {
        let mut edited = Edited::of(text);
        let (mut read, mut last_name) = (0, None);
        for (n, piece) in pieces.iter().enumerate().map(|(n, piece)| (n + 1, piece)) {
            if piece.place.end <= read {
                continue;
            }
            match piece.kind {
                PieceKind::Secret(name) => {
                    let shown = self.replacement(name, &content(&text[piece.place.clone()]), false);
                    shown.into_iter().for_each(|shown| edited.replace(piece.place.clone(), &shown));
                    last_name = None;
                }
                PieceKind::InTag => self.replace_in_part(&mut edited, piece.place.clone(), piece.kind),
                PieceKind::Escaped | PieceKind::Verbatim => {
                    let place = read.max(piece.place.start)..piece.place.end;
                    read = self.replace_in_piece(&mut edited, place, piece, &pieces[n..], &mut last_name);
                }
            }
        }
        edited.changed()
    }

    /// Replaces the secrets in a piece of text in or next to elements. `place`: the part of the piece that was not read
    /// yet. Returns the position up to which everything is read, which may be in a later piece.
    fn replace_in_piece(
        &mut self,
        edited: &mut Edited<'_>,
        mut place: Range<usize>,
        piece: &Piece<'_>,
        later: &[Piece<'_>],
        last_name: &mut Option<String>,
    ) -> usize {
        let text = edited.text();
        while !text[place.clone()].trim().is_empty() {
            let part = &text[place.clone()];
            let after_name = last_name.take().and_then(|name| value_after_name(&name, part, self.is_secret));
            let (name, plain, value, is_line) = if let Some(found) = after_name {
                (found.name, Some(found.plain), found.place, found.is_line)
            } else if let Some(last) = Assignments::of(part, self.is_secret)
                .last()
                .filter(|last| last.value.end == part.len() && continued(text, piece, later).is_some())
            {
                let is_line = last.is_line();
                (last.name.into_owned(), None, last.value, is_line)
            } else {
                self.replace_in_part(edited, place.clone(), piece.kind);
                *last_name = trailing_name(part, self.is_secret);
                return place.end;
            };
            self.replace_in_part(edited, place.start..place.start + value.start, piece.kind);
            let more = if value.end == part.len() { continued(text, piece, later) } else { None };
            let value = place.start + value.start..more.unwrap_or(place.start + value.end);
            let plain = match plain.filter(|_| more.is_none()) {
                Some(plain) if piece.kind == PieceKind::Escaped => unescaped(&plain),
                Some(plain) => plain,
                None => text[value.clone()].trim().to_owned(),
            };
            place.start = value.end;
            if let Some(shown) = self.replacement(&name, &plain, is_line) {
                edited.replace(value, &shown);
            }
            if place.start >= place.end {
                break;
            }
        }
        place.start.max(piece.place.end)
    }

    /// Replaces the secrets in a part of a piece that depend on no other piece.
    fn replace_in_part(&mut self, edited: &mut Edited<'_>, place: Range<usize>, kind: PieceKind<'_>) {
        let part = &edited.text()[place.clone()];
        let shown = match kind {
            PieceKind::Verbatim => self.replace_in_text(part),
            PieceKind::Secret(_) | PieceKind::InTag | PieceKind::Escaped => match unescaped(part) {
                plain if plain == part => self.replace_in_lines(part),
                plain => self.replace_in_text(&plain).map(|shown| escaped(&shown)),
            },
        };
        if let Some(shown) = shown {
            edited.replace(place, &shown);
        }
    }
}

/// The end of a value that reaches the end of this piece and continues in later pieces: the end of the line or of the
/// enclosing element. `None` if it does not continue; a value in CDATA delimiters ends with them.
fn continued(text: &str, piece: &Piece<'_>, later: &[Piece<'_>]) -> Option<usize> {
    if piece.kind == PieceKind::Verbatim {
        return None;
    }
    let mut end = None;
    for next in later.iter().take_while(|next| next.depth_min >= piece.depth) {
        if next.kind != PieceKind::Escaped && next.kind != PieceKind::Verbatim {
            continue;
        }
        let part = &text[next.place.clone()];
        let line = &part[..part.find(['\n', '\r']).unwrap_or(part.len())];
        if !line.trim().is_empty() {
            end = Some(next.place.start + line.trim_end().len());
        }
        if line.len() < part.len() {
            break;
        }
    }
    end
}
