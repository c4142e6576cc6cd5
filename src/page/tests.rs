//! The page as a router: each test sends what a browser sends, and reads the pages.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::router;
use crate::admin::tests::access::{READER, tokens};
use crate::admin::tests::test_api::TestApi;

/// A browser with its cookies.
struct Browser {
    page: Router,
    cookie: Option<String>,
}

struct Shown {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Shown {
    /// The key in the forms of the page.
    fn form_key(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"form_key\" value=\"").expect("a form");
        rest.split('"').next().unwrap().to_owned()
    }
    fn location(&self) -> &str {
        self.headers[header::LOCATION].to_str().unwrap()
    }
}

impl Browser {
    fn new(api: &TestApi) -> Self {
        Self { page: router(api.local()), cookie: None }
    }
    async fn get(&mut self, path: &str) -> Shown {
        self.send(Request::get(path), Body::empty()).await
    }
    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Shown {
        let mut form = String::new();
        for (name, value) in fields {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            form.push_str(&format!("{name}={value}&"));
        }
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request, Body::from(form)).await
    }
    async fn send(&mut self, request: http::request::Builder, body: Body) -> Shown {
        let mut request = request.header(header::HOST, "localhost:8081").header(header::ACCEPT, "text/html,*/*;q=0.8");
        if let Some(cookie) = &self.cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let (head, body) = self.page.clone().oneshot(request.body(body).unwrap()).await.unwrap().into_parts();
        if let Some(set) = head.headers.get(header::SET_COOKIE) {
            self.cookie = Some(set.to_str().unwrap().split(';').next().unwrap().to_owned());
        }
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Shown { status: head.status, headers: head.headers, text }
    }
    async fn log_in(&mut self, bearer: &str) -> Shown {
        let form_key = self.get("/login?next=%2Fruns").await.form_key();
        let token = bearer.trim_start_matches("Bearer ");
        self.post("/login", &[("form_key", &form_key), ("back", "/runs"), ("token", token)]).await
    }
}

#[tokio::test]
async fn programs_get_the_list_of_endpoints_and_browsers_the_page() {
    let api = TestApi::new().await;
    let mut browser = Browser::new(&api);
    let page = browser.get("/").await;
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.text.contains("orders.create"), "{}", page.text);
    let request = Request::get("/").header(header::HOST, "localhost:8081").body(Body::empty()).unwrap();
    let listed = router(api.local()).oneshot(request).await.unwrap();
    assert_eq!(listed.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(browser.get("/healthz").await.text, "ok\n", "other paths are the API's");
}

#[tokio::test]
async fn nothing_in_the_markup_may_be_executed_and_no_other_site_may_frame_it() {
    let api = TestApi::new().await;
    let page = Browser::new(&api).get("/").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for inline in [" style=", " onclick=", "<style", "javascript:"] {
        assert!(!page.text.contains(inline), "{inline}");
    }
    let request = Request::get("/").header(header::HOST, "attacker.example").header(header::ACCEPT, "text/html");
    let foreign = router(api.local()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN, "by DNS rebinding");
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_login_and_from_there_to_the_page() {
    let mut api = TestApi::new().await;
    api.tokens = tokens();
    let mut browser = Browser::new(&api);
    for path in ["/", "/runs", "/record", "/routes/orders.create", "/runs/run_1?step=a", "/freeze"] {
        let page = browser.get(path).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{path}");
        assert!(page.location().starts_with("/login?next=%2F"), "{}", page.location());
        assert!(!page.text.contains("orders"), "{}", page.text);
    }
    let refused = browser.log_in("Bearer no-such-token-0123456789").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.text.contains("The token is not known"), "{}", refused.text);
    assert_eq!(browser.get("/runs").await.status, StatusCode::SEE_OTHER);
    let welcome = browser.log_in(READER).await;
    assert_eq!((welcome.status, welcome.location()), (StatusCode::SEE_OTHER, "/runs"));
    let cookie = welcome.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let runs = browser.get("/runs").await;
    assert_eq!(runs.status, StatusCode::OK);
    assert!(runs.text.contains("reader") && runs.text.contains("Log out"), "{}", runs.text);
    let form_key = runs.form_key();
    assert_eq!(browser.post("/logout", &[("form_key", &form_key)]).await.location(), "/login");
    assert_eq!(browser.get("/runs").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_session_ends_when_its_token_is_not_in_force_any_more() {
    let mut api = TestApi::new().await;
    api.tokens = tokens();
    let mut browser = Browser::new(&api);
    browser.log_in(READER).await;
    // Another process on the same store accepts the session.
    browser.page = router(api.local());
    assert_eq!(browser.get("/runs").await.status, StatusCode::OK);
    let reader = api.tokens.iter_mut().find(|token| token.name == "reader").unwrap();
    reader.secret = crate::secret::Secret::new("another-token-0123456789".to_owned());
    browser.page = router(api.local());
    assert_eq!(browser.get("/runs").await.status, StatusCode::SEE_OTHER, "the token has another text");
}

#[tokio::test]
async fn a_form_without_the_key_of_the_session_does_nothing() {
    let api = TestApi::new().await;
    let mut browser = Browser::new(&api);
    let form_key = browser.get("/").await.form_key();
    for key in ["", "AAAA", &form_key[1..]] {
        let refused = browser.post("/name", &[("form_key", key), ("name", "mallory")]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{key}");
    }
    let mut other = Browser::new(&api);
    other.get("/").await;
    assert_eq!(
        other.post("/name", &[("form_key", &form_key), ("name", "mallory")]).await.status,
        StatusCode::FORBIDDEN
    );
    assert!(!browser.get("/").await.text.contains("mallory"));
    let set = browser.post("/name", &[("form_key", &form_key), ("name", "ann"), ("back", "//evil.example")]).await;
    assert_eq!((set.status, set.location()), (StatusCode::SEE_OTHER, "/"), "never to another site");
    assert!(browser.get("/").await.text.contains("value=\"ann\""));
}

#[tokio::test]
async fn a_missing_scope_is_the_apis_refusal() {
    let mut api = TestApi::new().await;
    api.tokens = tokens();
    let mut browser = Browser::new(&api);
    browser.log_in(crate::admin::tests::access::DECIDER).await;
    let page = browser.get("/runs").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text.contains("does not have the scope") && page.text.contains("read"), "{}", page.text);
}

#[tokio::test]
async fn what_is_not_there_is_said_on_a_page() {
    let api = TestApi::new().await;
    let mut browser = Browser::new(&api);
    let route = browser.get("/routes/orders.creat").await;
    assert_eq!(route.status, StatusCode::NOT_FOUND);
    assert!(route.text.contains("<h1>") && route.text.contains("orders.create"), "{}", route.text);
    assert_eq!(browser.get("/runs/run_00000000000000000000000000000000").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn script_style_and_icon_are_kept_by_browsers() {
    let api = TestApi::new().await;
    let mut browser = Browser::new(&api);
    let page = browser.get("/").await.text;
    for (begin, kind) in [("src=\"/page/page.", "text/javascript"), ("href=\"/page/page.", "text/css")] {
        let (_, rest) = page.split_once(begin).expect("a link to it");
        let path = format!("/page/page.{}", rest.split('"').next().unwrap());
        let file = browser.get(&path).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        assert!(file.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(kind), "{path}");
        assert!(file.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"), "{path}");
    }
}

/// With a link of another site, a browser sends no cookie of the strict kind.
#[tokio::test]
async fn a_link_from_another_site_leads_to_the_page_and_ends_no_session() {
    let mut api = TestApi::new().await;
    api.tokens = tokens();
    let mut browser = Browser::new(&api);
    browser.log_in(READER).await;
    let cookie = browser.cookie.take();
    let link = || Request::get("/runs?status=paused").header("sec-fetch-site", "cross-site");
    let opened = browser.send(link().header("sec-fetch-mode", "navigate"), Body::empty()).await;
    assert_eq!((opened.status, opened.headers.get(header::SET_COOKIE)), (StatusCode::OK, None));
    assert!(opened.text.contains("content=\"0; url=/runs?status=paused\""), "{}", opened.text);
    let embedded = browser.send(link().header("sec-fetch-mode", "no-cors"), Body::empty()).await;
    assert_eq!((embedded.status, embedded.headers.get(header::SET_COOKIE)), (StatusCode::FORBIDDEN, None));
    browser.cookie = cookie;
    assert_eq!(browser.get("/runs?status=paused").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_of_a_token_is_one_without_a_name_once_there_are_no_tokens() {
    let mut api = TestApi::new().await;
    api.tokens = tokens();
    let mut browser = Browser::new(&api);
    browser.log_in(READER).await;
    api.tokens.clear();
    browser.page = router(api.local());
    let page = browser.get("/runs").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("Your name") && !page.text.contains("Log out"), "{}", page.text);
}
