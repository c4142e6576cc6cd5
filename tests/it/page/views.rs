//! Every view: it opens, is accessible and fits, however a person looks at it; every link leads somewhere.

use serde_json::{Value, json};

use super::PageTest;

/// The route with the longest name that the files have.
const LONG: &str = "no.workflow.and.a.long.name-0123456789-0123456789-01234567";

impl PageTest {
    /// Every view, in every state that a filled test has: name, path and status.
    pub(super) fn views(&self) -> Value {
        let mut views = vec![
            ("overview".to_owned(), "/".to_owned(), 200),
            ("route".to_owned(), "/routes/things".to_owned(), 200),
            ("route that was moved".to_owned(), "/routes/same".to_owned(), 200),
            ("route of a family".to_owned(), "/routes/orders.create".to_owned(), 200),
            ("route with a long name".to_owned(), format!("/routes/{LONG}"), 200),
            ("flip".to_owned(), "/routes/same/flip".to_owned(), 200),
            ("flip up".to_owned(), "/routes/same/flip?to=dark".to_owned(), 200),
            ("flip down".to_owned(), "/routes/same/flip?to=off".to_owned(), 200),
            ("differences".to_owned(), "/routes/things/differences".to_owned(), 200),
            ("no differences".to_owned(), "/routes/same/differences".to_owned(), 200),
            ("freeze".to_owned(), "/freeze".to_owned(), 200),
            ("record".to_owned(), "/record".to_owned(), 200),
            ("runs".to_owned(), "/runs".to_owned(), 200),
            ("unknown route".to_owned(), "/routes/nothing".to_owned(), 404),
            ("unknown run".to_owned(), "/runs/run_01a232b2a526700091b8b6b6ab395fff".to_owned(), 404),
        ];
        views.extend(self.runs.keys().map(|name| (format!("run {name}"), format!("/runs/{}", self.id(name)), 200)));
        views.into_iter().map(|(name, path, status)| json!({ "name": name, "path": path, "status": status })).collect()
    }
}

/// Looks at every view in these ways. With POINTSMAN_PICTURES=DIR, a screenshot of each goes there.
async fn look_at_all(looks: &[&str]) {
    let test = PageTest::filled().await;
    let pictures = std::env::var("POINTSMAN_PICTURES").ok();
    let views = test.views();
    let count = views.as_array().expect("a list").len() * looks.len();
    let given = json!({ "views": views, "looks": looks, "pictures": pictures });
    // Of each view: its status, heading, accessibility, width, inert data, and errors.
    test.run("views.mjs", 6 * count, given).await;
    test.release_and_finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_accessible_in_light_and_dark() {
    look_at_all(&["light", "dark"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_accessible_in_forced_colours_and_without_motion() {
    look_at_all(&["forced", "still"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_fits_a_narrow_window_and_one_at_400_percent() {
    look_at_all(&["narrow", "zoomed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_leads_to_a_page_that_opens() {
    let test = PageTest::filled().await;
    test.run("links.mjs", 100, json!({ "shapes_min": 8 })).await;
    test.release_and_finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_nothing_is_missing_and_a_run_can_be_answered() {
    let test = PageTest::filled().await;
    test.run("without_scripts.mjs", 60, json!({ "views": test.views() })).await;
    assert_eq!(test.works.effects("POST /refunds"), 1, "what was approved was performed, once");
    test.release_and_finish().await;
}
