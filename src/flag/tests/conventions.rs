//! Tests which spellings of a path belong to a route, by what its service declares.

use proptest::prelude::*;

use super::*;

const FRAMEWORKS: [Framework; 6] =
    [Framework::Tomcat, Framework::Spring, Framework::Express, Framework::Rails, Framework::Iis, Framework::Strict];

/// A shop in `only` whose legacy reads paths by these conventions.
fn shop(paths: PathConventions) -> FlagSet {
    let legacy = Arc::new(Service { paths, ..Service::clone(&service("shop")) });
    let at = |id: &str, method, path: &str| Route {
        legacy: legacy.clone(),
        strict_paths: paths.strict,
        ..route(id, method, path)
    };
    let mut plain = at("plain", Method::GET, "/plain/{id}");
    plain.workflow = None;
    let mut follow = at("follow", Method::GET, "/orders/{id}");
    follow.instance = Some(Instance::Follows { creator: "create".into(), key: InstanceKeySource::Path("id".into()) });
    let routes = vec![
        at("create", Method::POST, "/orders"),
        follow,
        at("top", Method::GET, "/orders/top"),
        at("Cancel", Method::POST, "/orders/{Order}/Cancel"),
        at("cafe", Method::GET, "/caf\u{e9}/{id}"),
        plain,
    ];
    let inputs = routes.iter().map(|route| (route.id.clone(), state_inputs(State::Only))).collect();
    let routes = routes.into_iter().map(Arc::new).collect();
    FlagSet::new(1, routes, &inputs, legacy, BTreeMap::new(), Freeze::No, [7; 32])
}

fn framework(framework: Framework) -> FlagSet {
    shop(PathConventions::of(framework))
}

/// The route, the values of its parameters, and the forwarded path; or why the path is refused.
fn resolve(set: &FlagSet, method: &Method, raw: &str) -> Result<(Option<String>, Vec<String>, String), PathRefusal> {
    let resolved = set.resolve(method, None, raw, || 0)?;
    let path = resolved.path.into_owned();
    Ok(match resolved.found {
        None => (None, Vec::new(), path),
        Some(found) => {
            let values = found.params.into_iter().map(|(_, value)| value).collect();
            (Some(found.flag.route.id.to_string()), values, path)
        }
    })
}

/// Spellings of `POST /orders` that some framework takes for `/orders`.
const SPELLINGS: [&str; 34] = [
    "/orders",
    "/%6Frders",
    "/%6frders",
    "/x/../orders",
    "/./orders",
    "/x/%2e%2e/orders",
    "/x/.%2E/orders",
    "/orders/",
    "/orders//",
    "//orders",
    "/.//orders",
    "/ORDERS",
    "/Orders/",
    "/%4Frders",
    "/orders;v=1",
    "/orders;jsessionid=1",
    "/orders;v=1/",
    "/;v=1/orders",
    "/x/..;/orders",
    "/x;a/..;b/orders",
    "/orders.json",
    "/orders.",
    "/orders.a.b",
    "/orders.json;v=1",
    "/orders;v=1.json",
    "/orders.json/",
    "/%2Forders",
    "/x%2F..%2Forders",
    "/\\orders",
    "/x\\..\\orders",
    "/orders%5C",
    "/%256Frders",
    "/orders%00.png",
    "/orders%0A",
];

/// The spellings that a framework with its default settings takes for `/orders` are decided by the flag of that route,
/// or refused.
#[test]
fn no_spelling_that_a_framework_takes_for_a_route_reaches_legacy_in_only() {
    let same = |framework, spelling: &str| {
        let has = |part: &str| spelling.contains(part);
        let (slash, case) = (spelling.ends_with('/'), spelling.chars().any(char::is_uppercase) && !has("%"));
        let upper = case || has("%4F");
        match framework {
            Framework::Tomcat => !slash && !upper && !has("."),
            Framework::Spring => !upper,
            Framework::Express | Framework::Iis => !has(";") && !has("."),
            Framework::Rails => !upper && !has(";"),
            Framework::Strict => true,
        }
    };
    let (mut taken, mut refused, mut passed) = (0, 0, 0);
    for framework in FRAMEWORKS {
        let set = self::framework(framework);
        for spelling in SPELLINGS {
            let dots = spelling.contains("/.");
            match resolve(&set, &Method::POST, spelling) {
                Ok((Some(route), ..)) => {
                    assert_eq!(route, "create", "{framework:?} {spelling}");
                    taken += 1;
                }
                Ok((None, _, path)) => {
                    assert_eq!(path, spelling, "{framework:?}");
                    assert!(!dots && !same(framework, spelling), "{framework:?} {spelling} reaches legacy");
                    passed += 1;
                }
                Err(why) => {
                    assert!(
                        matches!(why, PathRefusal::Ambiguous | PathRefusal::Strict | PathRefusal::Control),
                        "{why}"
                    );
                    refused += 1;
                }
            }
            if framework == Framework::Strict {
                assert_eq!(resolve(&set, &Method::POST, spelling).is_ok(), spelling == "/orders", "{spelling}");
            }
        }
    }
    println!(
        "{} spellings: {taken} decided by the flag, {refused} refused, {passed} another path",
        6 * SPELLINGS.len()
    );
}

#[test]
fn a_spelling_is_matched_and_forwarded_in_the_spelling_of_the_template() {
    use Framework::{Express, Iis, Rails, Spring, Tomcat};
    for (framework, method, raw, id, values, forwarded) in [
        (Express, Method::POST, "/ORDERS/", "create", vec![], "/orders"),
        (Express, Method::GET, "/Orders/aB/", "follow", vec!["aB"], "/orders/aB"),
        (Express, Method::GET, "/orders/TOP", "top", vec![], "/orders/top"),
        (Express, Method::POST, "/orders/aB/cancel", "Cancel", vec!["aB"], "/orders/aB/Cancel"),
        (Express, Method::GET, "/orders/a.b", "follow", vec!["a.b"], "/orders/a.b"),
        (Express, Method::GET, "/orders/17;v", "follow", vec!["17;v"], "/orders/17;v"),
        // Nothing reads the parameters of a route without a workflow.
        (Express, Method::GET, "/PLAIN/1/", "plain", vec![], "/PLAIN/1/"),
        (Tomcat, Method::GET, "/orders;a/17;jsessionid=x", "follow", vec!["17"], "/orders;a/17;jsessionid=x"),
        (Tomcat, Method::GET, "/x/..;/orders/17", "follow", vec!["17"], "/orders/17"),
        (Tomcat, Method::GET, "/orders/17.json", "follow", vec!["17.json"], "/orders/17.json"),
        (Spring, Method::GET, "/orders/17.json", "follow", vec!["17"], "/orders/17.json"),
        (Spring, Method::GET, "/orders/17.json;v/", "follow", vec!["17"], "/orders/17.json;v"),
        (Spring, Method::GET, "/orders/top.xml", "top", vec![], "/orders/top.xml"),
        (Spring, Method::GET, "/orders/.json", "follow", vec![".json"], "/orders/.json"),
        (Rails, Method::POST, "/orders.json/", "create", vec![], "/orders.json"),
        (Iis, Method::GET, "/CAF%C3%89/1", "cafe", vec!["1"], "/caf%C3%A9/1"),
        (Iis, Method::GET, "/caf%c3%a9/1", "cafe", vec!["1"], "/caf%c3%a9/1"),
        (Iis, Method::POST, "/ORDERS/%41b/CANCEL", "Cancel", vec!["Ab"], "/orders/%41b/Cancel"),
    ] {
        let expected = (Some(id.to_owned()), values.into_iter().map(str::to_owned).collect(), forwarded.to_owned());
        assert_eq!(resolve(&self::framework(framework), &method, raw), Ok(expected), "{framework:?} {raw}");
    }
    for (framework, raw) in [(Express, "/orders.json"), (Rails, "/orders;v"), (Tomcat, "/ORDERS"), (Tomcat, "/orders/")]
    {
        assert_eq!(
            resolve(&self::framework(framework), &Method::POST, raw),
            Ok((None, vec![], raw.to_owned())),
            "{raw}"
        );
    }
}

#[test]
fn a_strict_route_has_one_spelling() {
    let set = framework(Framework::Strict);
    for raw in [
        "/orders/17/",
        "/ORDERS/17",
        "/orders/Top",
        "/orders/top.json",
        "/x/../orders/17",
        "/plain;v/1",
        "/PLAIN/1",
        "/%6Frders/17",
        "/%6frders/17",
        "/orders/%31%37",
        "/orders/a%3ab",
        "/%70lain/1",
        "/caf%c3%a9/1",
    ] {
        assert_eq!(resolve(&set, &Method::GET, raw), Err(PathRefusal::Strict), "{raw}");
    }
    for raw in
        ["/orders/17.json", "/orders/aB", "/plain/A.b", "/ORDER/17", "/other/", "/orders/a%20b", "/caf%C3%A9/%3A:"]
    {
        assert!(resolve(&set, &Method::GET, raw).is_ok(), "{raw}");
    }
}

/// The segments as which a framework reads a path; a naive implementation.
fn read(conventions: &PathConventions, path: &str) -> Vec<String> {
    let mut segments: Vec<String> = Vec::new();
    let all: Vec<_> = path.split('/').skip(1).collect();
    for (index, segment) in all.iter().enumerate() {
        let segment = match conventions.parameters {
            Some(ExtraPart::Strip) => segment.split(';').next().unwrap(),
            _ => segment,
        };
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let is_last = index + 1 == all.len();
        match decoded.as_str() {
            "." if is_last => segments.push(String::new()),
            "." => {}
            ".." => {
                segments.pop();
                if is_last {
                    segments.push(String::new());
                }
            }
            _ => segments.push(decoded),
        }
    }
    if conventions.trailing_slash == Some(SpellingRule::Same)
        && segments.len() > 1
        && segments.last().unwrap().is_empty()
    {
        segments.pop();
    }
    if conventions.suffix == Some(ExtraPart::Strip)
        && let Some(last) = segments.last_mut()
        && let Some(at) = last.rfind('.').filter(|at| *at > 0)
    {
        last.truncate(at);
    }
    if conventions.case == Some(SpellingRule::Same) {
        segments.iter_mut().for_each(|segment| *segment = segment.to_lowercase());
    }
    segments
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6_000))]

    /// A path that a framework reads as a route is decided by the flag of a route (which one is not checked here) or
    /// refused; and the forwarded path is resolved to the same route again, unchanged.
    #[test]
    fn a_path_that_a_service_reads_as_a_route_is_never_forwarded_unmatched(
        parts in proptest::collection::vec(
            prop_oneof![
                6 => Just("orders"), 2 => Just("ORDERS"), 2 => Just("%6Frders"), 6 => Just("/"), 1 => Just("//"), 2 => Just("17"),
                2 => Just("top"), 2 => Just("cancel"), 2 => Just(".json"), 2 => Just(";v=1"), 1 => Just(".."), 1 => Just("%2E"),
                1 => Just("%2f"), 1 => Just("\\"), 1 => Just("%256F"), 1 => Just("."), 1 => Just("x"),
            ], 0..8),
        framework in 0..FRAMEWORKS.len(),
        post in any::<bool>(),
    ) {
        let conventions = PathConventions::of(FRAMEWORKS[framework]);
        let set = shop(conventions);
        let raw = format!("/{}", parts.concat());
        let method = if post { Method::POST } else { Method::GET };
        let Ok((found, values, path)) = resolve(&set, &method, &raw) else { return Ok(()) };

        let again = resolve(&set, &method, &path);
        prop_assert_eq!(again, Ok((found.clone(), values, path.clone())), "{}", raw);

        let read = read(&conventions, &path);
        let flagged = match (post, read.iter().map(|s| s.to_lowercase()).collect::<Vec<_>>().as_slice()) {
            (true, [a]) => a == "orders" && read[0] == "orders",
            (true, [a, id, c]) => a == "orders" && !id.is_empty() && c == "cancel" && conventions.ignores_case() && read[0] == "orders",
            (false, [_, id]) => read[0] == "orders" && !id.is_empty(),
            _ => false,
        };
        prop_assert!(!flagged || found.is_some(), "{} forwarded as {} is read as {:?}", raw, path, read);
    }
}
