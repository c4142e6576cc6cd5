//! Tests which route a raw request gets, and that no spelling of a path bypasses a flag.

use proptest::prelude::*;

use super::*;

fn shop() -> FlagSet {
    let mut hosted = route("admin.orders", Method::GET, "/orders/{id}");
    hosted.matches.host = Some("admin.example.com".into());
    let mut strict = route("files", Method::GET, "/files/{name}");
    strict.strict_paths = true;
    let mut pinned = route("pinned", Method::GET, "/pinned/{id}");
    pinned.instance =
        Some(Instance::Follows { creator: "orders.create".into(), key: InstanceKeySource::Path("id".into()) });
    let mut plain = route("plain", Method::GET, "/plain/{id}");
    plain.workflow = None;
    let routes = vec![
        route("orders.create", Method::POST, "/orders"),
        route("orders.get", Method::GET, "/orders/{id}"),
        route("orders.top", Method::GET, "/orders/top"),
        route("orders.cancel", Method::POST, "/orders/{order}/cancel"),
        route("orders.head", Method::HEAD, "/orders/top"),
        route("quiet", Method::GET, "/quiet/{id}"),
        route("space", Method::GET, "/a%20b/{x}"),
        hosted,
        strict,
        pinned,
        plain,
    ];
    let shadow = ["orders.create", "orders.get", "orders.cancel", "space"];
    let inputs = shadow.into_iter().map(|id| (id.into(), state_inputs(State::Shadow))).collect();
    set(routes, inputs, Freeze::No)
}

fn find(set: &FlagSet, method: &Method, host: Option<&str>, raw: &str) -> Result<Option<String>, PathRefusal> {
    let found = set.resolve(method, host, raw, || 0)?.found;
    Ok(found.map(|found| found.flag.route.id.to_string()))
}

#[test]
fn the_most_specific_route_wins() {
    let set = shop();
    for (method, host, path, id) in [
        (Method::POST, None, "/orders", Some("orders.create")),
        (Method::GET, None, "/orders", None),
        (Method::GET, None, "/orders/17", Some("orders.get")),
        (Method::GET, None, "/orders/top", Some("orders.top")),
        (Method::HEAD, None, "/orders/17", Some("orders.get")),
        (Method::HEAD, None, "/orders/top", Some("orders.head")),
        (Method::POST, None, "/orders/top/cancel", Some("orders.cancel")),
        (Method::GET, None, "/orders/", None),
        (Method::GET, None, "/orders/17/", None),
        (Method::GET, Some("Admin.Example.com.:8080"), "/orders/17", Some("admin.orders")),
        (Method::GET, Some("admin.example.com"), "/orders/top", Some("admin.orders")),
        (Method::POST, Some("admin.example.com"), "/orders", Some("orders.create")),
        (Method::GET, Some("other.example.com"), "/orders/17", Some("orders.get")),
        (Method::GET, None, "/a%20b/1", Some("space")),
        (Method::DELETE, None, "/orders/17", None),
        (Method::OPTIONS, None, "*", None),
    ] {
        assert_eq!(find(&set, &method, host, path), Ok(id.map(str::to_owned)), "{method} {host:?} {path}");
    }
}

#[test]
fn parameters_are_decoded_and_have_the_routes_names() {
    let set = shop();
    let found = set.find(&Method::POST, None, "/orders/%31%37%20x/cancel").unwrap();
    assert_eq!(found.params, vec![("order".into(), "17 x".to_owned())]);
    assert!(set.route(&"orders.get".into()).is_some());
    assert!(set.route(&"nobody".into()).is_none());
}

#[test]
fn ambiguous_paths_that_could_bypass_a_route_with_a_workflow_are_refused() {
    let set = shop();
    for (method, raw, answer) in [
        (Method::POST, "//orders", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/x%2F..%2Forders", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/orders%5c17", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/orders/a%2Fb", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/a%20b%2F7", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/orders;v=1", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/x/..;/orders", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/orders/17;v=1", Ok(Some("orders.get"))),
        (Method::GET, "/orders/top;v=1", Err(PathRefusal::Ambiguous)),
        // Routes with a workflow count in `off` too, because retry keys are honoured there.
        (Method::GET, "/quiet//17", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/quiet;v=1/17", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/quiet/a%2Fb", Ok(Some("quiet"))),
        (Method::GET, "/quiet/17;v=1", Ok(Some("quiet"))),
        // Otherwise a request could avoid its pin.
        (Method::GET, "/pinned//17", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/pinned/17%2F", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/pinned/17;v=1", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/plain//17", Ok(None)),
        (Method::GET, "/plain/17;v=1", Ok(Some("plain"))),
        (Method::GET, "/nothing//here", Ok(None)),
        (Method::GET, "/files//17", Err(PathRefusal::Strict)),
        (Method::GET, "/files/a%2Fb", Err(PathRefusal::Strict)),
        (Method::GET, "/files/a;b", Err(PathRefusal::Strict)),
        (Method::GET, "/x/../files/a", Err(PathRefusal::Strict)),
        // Some servers do not resolve dots, or stop at the root.
        (Method::GET, "/../orders/17", Err(PathRefusal::AboveRoot)),
        (Method::GET, "/orders/17/../../x", Ok(None)),
        (Method::GET, "/orders/..", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/x/orders/..", Ok(None)),
        (Method::POST, "/x/..%2Forders/y/..", Err(PathRefusal::Ambiguous)),
        // Some servers decode twice, know `%uXXXX`, or end the path at a control character.
        (Method::POST, "/%256Frders", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/x%252F..%252Forders", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/%25%36%46rders", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/%u006frders", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/orders%00.json", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/orders%0a", Err(PathRefusal::Ambiguous)),
        (Method::POST, "/orders%3Bv", Err(PathRefusal::Ambiguous)),
        (Method::GET, "/orders/%zz", Err(PathRefusal::Percent)),
        (Method::GET, "/orders/a%00", Err(PathRefusal::Control)),
        (Method::GET, "/orders/100%2525", Ok(Some("orders.get"))),
        // A path that concerns no route with a workflow is forwarded.
        (Method::GET, "/x/%zz/%00/%0d", Ok(None)),
        (Method::GET, "/../x", Ok(None)),
        (Method::POST, "/orders%zz", Ok(None)),
        (Method::POST, "/xorders//%2F;a", Ok(None)),
    ] {
        assert_eq!(
            find(&set, &method, None, raw),
            answer.map(|id: Option<&str>| id.map(str::to_owned)),
            "{method} {raw}"
        );
    }
}

/// How a lenient origin server may normalise a path: it may decode it, drop parameters and replace backslashes; it
/// merges slashes before or after it resolves dot segments.
fn lenient_origin_path(path: &str, decode: bool, backslash: bool, merge_first: bool, parameters: bool) -> String {
    let mut text = path.to_owned();
    if decode {
        text = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    if parameters {
        text =
            text.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/");
    }
    if backslash {
        text = text.replace("%5c", "\\").replace("%5C", "\\").replace('\\', "/");
    }
    let merge = |text: &str| {
        let mut merged = text.to_owned();
        while merged.contains("//") {
            merged = merged.replace("//", "/");
        }
        merged
    };
    if merge_first {
        text = merge(&text);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let text = format!("/{}", segments.join("/"));
    if merge_first { text } else { merge(&text) }
}

/// A retry may come of a request that the engine has performed, although no route matches it any more.
#[test]
fn requests_of_a_route_of_earlier_files_are_resolved_or_refused_while_a_retry_may_come() {
    let gone = route("gone", Method::POST, "/gone");
    let times = EarlierTimes { first_tries_until_s: 10, retries_until_s: 20 };
    let scope = RetryScope::of(&gone).parse_earlier(times).unwrap();
    let reassigned =
        vec![ReassignedRequests::new("gone".into(), gone.matches, PathConventions::of(Framework::Express), scope)];
    let set = shop().with_earlier_scopes(Arc::new(EarlierScopes { reassigned, ..EarlierScopes::default() }));
    let resolve = |raw: &'static str, now_s: i64| {
        let resolved = set.resolve(&Method::POST, None, raw, || now_s)?;
        Ok((resolved.former.is_some(), resolved.path.into_owned()))
    };
    assert_eq!(resolve("/gone", 0), Ok((true, "/gone".into())));
    assert_eq!(resolve("/x/../gone", 0), Ok((true, "/gone".into())));
    assert_eq!(resolve("/Gone/", 0), Ok((true, "/Gone/".into())), "the same to the service at that time");
    assert_eq!(resolve("/Gone/", 20), Ok((false, "/Gone/".into())));
    for raw in ["//gone", "/gone;v", "/x/..;/gone", "/%2567one"] {
        assert_eq!(resolve(raw, 0), Err(PathRefusal::Ambiguous), "{raw}");
        assert_eq!(resolve(raw, 20), Ok((false, raw.into())), "{raw}");
    }
    assert_eq!(resolve("/x/../gone", 20), Ok((false, "/x/../gone".into())));
}

/// The work is bounded, whatever the path.
#[test]
fn paths_that_can_be_read_in_very_many_ways_are_refused_only_where_a_route_may_be_concerned() {
    let set = shop();
    let many = format!("/x{}{}/orders", "/a".repeat(200), "/..;".repeat(201));
    assert_eq!(find(&set, &Method::POST, None, &many), Err(PathRefusal::TooManyReadings));
    assert_eq!(find(&set, &Method::GET, None, &format!("/nothing{}", ";/".repeat(30_000))), Ok(None));
}

/// `cargo nextest run --lib --run-ignored only -E 'test(what_unusual_paths_cost)' --no-capture`
#[test]
#[ignore = "a measurement"]
fn what_unusual_paths_cost() {
    let set = shop();
    let plain = format!("/orders/{}", "a".repeat(4_088));
    let measure = |raw: &str| {
        let mut times: Vec<_> = (0..400)
            .map(|_| {
                let begun = std::time::Instant::now();
                let _ = std::hint::black_box(set.resolve(&Method::GET, None, std::hint::black_box(raw), || 0));
                begun.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let of_plain = measure(&plain);
    println!("plain: {of_plain:?}");
    for part in ["%41", "%2e", ";", "/", "/..;", "%2F..%2F", "%252e", "/%2e%2e", "a/../", "\\", "%00"] {
        for begin in ["/", "/orders/", "/nothing/"] {
            let raw = format!("{begin}{}", part.repeat(4_096 / part.len()));
            let time = measure(&raw);
            println!(
                "{begin}{part}…: {time:?}, {:.1} times the plain one",
                time.as_secs_f64() / of_plain.as_secs_f64()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// The forwarded path is the matched path; and if any origin server would interpret it as a route with a flag, it
    /// was matched to that route or refused.
    #[test]
    fn no_spelling_bypasses_a_flag(
        parts in proptest::collection::vec(
            prop_oneof![
                4 => Just("orders"), 2 => Just("%6Frders"), 4 => Just("/"), 2 => Just("//"), 2 => Just("%2f"),
                1 => Just("%5C"), 1 => Just("\\"), 2 => Just(".."), 1 => Just("%2e%2E"), 1 => Just("."),
                1 => Just("x"), 1 => Just("%20"), 1 => Just(";v=1"),
            ], 0..7),
        post in any::<bool>(),
        decode in any::<bool>(), backslash in any::<bool>(), merge_first in any::<bool>(),
        parameters in any::<bool>(),
    ) {
        let set = shop();
        let raw = format!("/{}", parts.concat());
        let method = if post { Method::POST } else { Method::GET };
        let Ok(resolved) = set.resolve(&method, None, &raw, || 0) else { return Ok(()) };
        let id = |found: &Option<FoundRoute<'_>>| found.as_ref().map(|f| f.flag.route.id.clone());

        let again = set.resolve(&method, None, &resolved.path, || 0);
        if resolved.found.is_none() {
            prop_assert_eq!(&*resolved.path, &*raw);
        }
        prop_assert!(again.is_ok_and(|again| again.path == resolved.path && id(&again.found) == id(&resolved.found)));

        if resolved.found.is_none() {
            let read = lenient_origin_path(&resolved.path, decode, backslash, merge_first, parameters);
            let flagged = match (post, read.split('/').collect::<Vec<_>>().as_slice()) {
                (true, ["", "orders"]) => true,
                (true, ["", "orders", id, "cancel"]) => !id.is_empty(),
                (false, ["", "orders", id]) => !id.is_empty() && *id != "top",
                _ => false,
            };
            prop_assert!(!flagged, "{} forwarded as {} is read as {}", raw, resolved.path, read);
        }
    }

    /// Any text is resolved or refused.
    #[test]
    fn any_path_has_an_answer(raw in "/\\PC{0,60}") {
        let _ = shop().resolve(&Method::GET, None, &raw, || 0);
    }

    /// The matcher agrees with a simple implementation.
    #[test]
    fn the_matcher_agrees_with_a_naive_one(
        templates in proptest::collection::btree_set(
            proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("ab"), Just("{p}")], 1..4), 1..8),
        path in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("ab"), Just("c")], 1..4),
    ) {
        let routes: Vec<_> = templates.iter().map(|t| {
            let template = format!("/{}", t.join("/"));
            route(&template, Method::GET, &template)
        }).collect();
        let set = set(routes, BTreeMap::new(), Freeze::No);
        let text = format!("/{}", path.join("/"));
        let found = set.find(&Method::GET, None, &text).map(|f| f.flag.route.id.to_string());
        // Segment by segment from the left, static before parameter: `false` sorts before `true`.
        let naive = templates.iter()
            .filter(|t| t.len() == path.len() && t.iter().zip(&path).all(|(t, p)| t == p || *t == "{p}"))
            .min_by_key(|t| t.iter().map(|s| *s == "{p}").collect::<Vec<_>>())
            .map(|t| format!("/{}", t.join("/")));
        prop_assert_eq!(found, naive);
    }
}
