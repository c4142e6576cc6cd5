//! Which spellings of a path belonged to a route by earlier files.

use super::*;
use crate::flag::{Framework, PathConventions};
use crate::ladder::scopes::{self, Scopes};

/// Where new `paths:` no longer count a spelling as the route's path, requests in it belong to no route any more; the
/// keys of earlier ones are still looked up for their retries.
#[test]
fn requests_in_spellings_that_new_files_tell_apart_are_looked_up() {
    let reading = |paths: PathConventions| {
        let service = Service { paths, ..Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]) };
        let route = files(&[]).routes.into_iter().find(|route| route.id.as_str() == "bare").unwrap();
        let routes = vec![Arc::new(Route { legacy: Arc::new(service), ..(*route).clone() })];
        DeclaredFiles { routes, ..files(&[]) }
    };
    let (express, exact) = (PathConventions::of(Framework::Express), PathConventions::default());
    let window = Duration::from_secs(86_400);
    let at = |hours: i64| jiff::Timestamp::from_second(1_000_000 + hours * 3_600).unwrap();
    let bare = RouteId::from("bare");
    for (before, now, since) in [(express, exact, None), (exact, express, Some(at(2)))] {
        let first = scopes::after_files(&Scopes::new(), &reading(before), false, at(0), window);
        let same = scopes::after_files(&first, &reading(before), true, at(1), window);
        assert!(same[&bare].reassigned.is_empty() && same[&bare].since.is_none());
        let scopes = scopes::after_files(&same, &reading(now), true, at(2), window);
        let [replaced] = &scopes[&bare].reassigned[..] else { panic!("{:?}", scopes[&bare].reassigned) };
        assert_eq!((replaced.matches.as_str(), replaced.paths), ("POST /bare", before));
        assert_eq!(
            scopes[&bare].since, since,
            "only if the route gets further spellings may it get requests whose keys were not recorded"
        );
    }
    // Scopes that an earlier version of the program stored do not say how paths were read.
    let mut first = scopes::after_files(&Scopes::new(), &reading(express), false, at(0), window);
    first.get_mut(&bare).unwrap().paths = None;
    assert!(scopes::after_files(&first, &reading(express), true, at(1), window)[&bare].reassigned.is_empty());
}

/// Requests for instances of the engine in a spelling that is told apart would go to legacy, which does not know them.
#[tokio::test]
async fn followers_of_instances_of_the_engine_keep_their_spellings() {
    let reading = |paths: PathConventions| {
        let service = Service { paths, ..Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9000")]) };
        edited(files(&[]), "follow", |route| route.legacy = Arc::new(service))
    };
    let [express, rails] = [Framework::Express, Framework::Rails].map(PathConventions::of);
    let fixture = Fixture::open(reading(express)).await;
    for narrower in [PathConventions::default(), rails] {
        let sentences = fixture.unfollowed(&reading(narrower)).await.unwrap();
        assert!(sentences.iter().any(|sentence| sentence.contains("the `paths:` of its service")), "{sentences:?}");
    }
    let refusing = edited(reading(express), "follow", |route| route.strict_paths = true);
    for harmless in [reading(express), reading(PathConventions { suffix: rails.suffix, ..express }), refusing] {
        assert_eq!(fixture.unfollowed(&harmless).await.unwrap(), Vec::<String>::new());
    }
}
