//! Finds the parameters of a path whose names in the route's template are secret: `/reset/{token}`.
//!
//! Always true: if the segments of the path do not correspond to those of the template one by one (there are dot
//! segments, double slashes, or a part that a proxy adds), every segment that is not a segment of the template is
//! hidden.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::names::is_secret;

/// Whether a parameter of this template has a secret name.
pub fn has_secret_params(template: &str) -> bool {
    template.contains('{') && template.split('/').any(is_secret_param)
}

fn is_secret_param(segment: &str) -> bool {
    segment.strip_prefix('{').is_some_and(|name| is_secret(name.trim_end_matches('}')))
}

/// A path, without a query, with `hidden` in place of the values of parameters with secret names.
pub fn without_secret_params<'p>(path: &'p str, template: &str, hidden: &str) -> Cow<'p, str> {
    if !has_secret_params(template) {
        return Cow::Borrowed(path);
    }
    let is_same = |segment: &str, other: &str| {
        segment.eq_ignore_ascii_case(other)
            || percent_decode_str(segment).decode_utf8_lossy().eq_ignore_ascii_case(other)
    };
    let (segments, of_template): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
    let is_aligned = segments.len() == of_template.len()
        && segments.iter().zip(&of_template).all(|(segment, other)| other.starts_with('{') || is_same(segment, other));
    let shown = segments.iter().enumerate().map(|(n, segment)| {
        let is_hidden = match is_aligned {
            true => is_secret_param(of_template[n]),
            false => !matches!(*segment, "." | "..") && !of_template.iter().any(|other| is_same(segment, other)),
        };
        if is_hidden && !segment.is_empty() { hidden } else { *segment }
    });
    Cow::Owned(shown.collect::<Vec<_>>().join("/"))
}

/// Whether a segment of a path, as it was sent or decoded, is the value of a parameter with a secret name.
pub fn is_secret_segment(segment: &str, params: &[(&str, &str)], is_secret: impl Fn(&str) -> bool) -> bool {
    let plain = percent_decode_str(segment).decode_utf8_lossy();
    params.iter().any(|(name, value)| (*value == segment || *value == plain) && is_secret(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_with_secret_names_are_hidden_however_the_path_is_written() {
        let shown = |path: &str| without_secret_params(path, "/reset/{token}/for/{user}", "***").into_owned();
        for (path, expected) in [
            ("/reset/hunter2/for/7", "/reset/***/for/7"),
            ("/Reset/hunter2.json/f%6Fr/7", "/Reset/***/f%6Fr/7"),
            ("/reset/hunter2;a=1/for/7", "/reset/***/for/7"),
            ("/x/../reset/hunter2/for/7", "/***/../reset/***/for/***"),
            ("//reset/hunter2/for/7", "//reset/***/for/***"),
            ("/base/reset/hunter2/for/7", "/***/reset/***/for/***"),
        ] {
            assert_eq!(shown(path), expected);
        }
        assert_eq!(without_secret_params("/orders/7", "/orders/{id}", "***"), "/orders/7");
        let params = [("token", "a b"), ("id", "7")];
        let is_hidden = |segment: &str| is_secret_segment(segment, &params, is_secret);
        assert!(is_hidden("a b") && is_hidden("a%20b") && !is_hidden("7") && !is_hidden("a"));
        assert!(has_secret_params("/a/{token}") && !has_secret_params("/token/{id}"));
    }
}
