//! The style, the script and the icon of the page. Their paths have a hash of the content, so that browsers may keep
//! them for ever and never use an old one.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// A file of the page.
pub(super) struct Asset {
    /// Its path.
    pub path: String,
    content: &'static str,
    kind: &'static str,
}

impl Asset {
    fn new(name: &str, content: &'static str, kind: &'static str) -> Self {
        let hash = blake3::hash(content.as_bytes()).to_hex();
        let (stem, end) = name.split_once('.').unwrap_or((name, ""));
        Self { path: format!("/page/{stem}.{}.{end}", &hash[..12]), content, kind }
    }
}

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    const ALL: &str = concat!(
        include_str!("assets/page.css"),
        include_str!("assets/routes.css"),
        include_str!("assets/differences.css"),
        include_str!("assets/runs.css"),
        include_str!("assets/actions.css"),
        include_str!("assets/live.css"),
    );
    Asset::new("page.css", ALL, "text/css; charset=utf-8")
});
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("page.js", include_str!("assets/page.js"), "text/javascript; charset=utf-8"));
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon.svg", include_str!("assets/icon.svg"), "image/svg+xml"));

/// Serves the files.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    [&STYLE, &SCRIPT, &ICON].into_iter().fold(Router::new(), |router, asset| {
        let serve = || async {
            let asset: &Asset = asset;
            let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, KEPT)];
            (headers, asset.content).into_response()
        };
        router.route(&asset.path, get(serve))
    })
}

/// How long browsers may keep the files: a year, without asking again.
const KEPT: &str = "public, max-age=31536000, immutable";

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has to open at once on slow lines too: script, style and icon together.
    #[test]
    fn script_and_style_are_small() {
        let bytes: usize = [&STYLE, &SCRIPT, &ICON].iter().map(|asset| asset.content.len()).sum();
        assert!(bytes < 120_000, "{bytes} bytes");
    }
}
