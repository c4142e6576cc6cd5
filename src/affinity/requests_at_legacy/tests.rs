//! Tests of the requests that legacy has, by instance.

use super::*;
use crate::flag::Family;

struct Nobody;

impl Adopter for Nobody {
    fn adopt(&self, _: AdoptionRequest) -> BoxFuture<'_, AdoptionAnswer> {
        ready(AdoptionAnswer::AtLegacy).boxed()
    }
}

const SETTLES: Duration = Duration::from_secs(30);

fn key(id: &str) -> InstanceKey {
    InstanceKey { family: Family::from(RouteId::from("orders.create")), id: id.into() }
}

fn requests() -> Arc<RequestsAtLegacyByInstance> {
    let requests = Arc::new(RequestsAtLegacyByInstance::default());
    let nobody: Arc<dyn Adopter> = Arc::new(Nobody);
    requests.connect(Arc::downgrade(&nobody), None);
    requests
}

fn admit(
    requests: &RequestsAtLegacyByInstance,
    access: InstanceAccess<&Family, &InstanceKey>,
    is_write: bool,
) -> Option<RequestAtLegacy> {
    match requests.admit(&LegacyAdmissionRequest { access, is_write, settles: SETTLES }) {
        LegacyAdmission::AtLegacy(request) => Some(request.expect("it is counted")),
        LegacyAdmission::Moving(_) | LegacyAdmission::Unknown => None,
    }
}

fn now() -> Instant {
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn an_instance_moves_once_the_requests_that_legacy_had_of_it_have_ended() {
    let requests = requests();
    let (one, other) = (key("17"), key("18"));
    let mut first = admit(&requests, InstanceAccess::FollowsUp(&one), true).unwrap();
    let _of_other = admit(&requests, InstanceAccess::FollowsUp(&other), true).unwrap();
    let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move yet"));
    assert!(admit(&requests, InstanceAccess::FollowsUp(&one), false).is_none(), "a new request waits");
    assert!(requests.begin(&one).is_err(), "one at a time");
    assert_eq!(mark.requests_ended(now()).await, RequestsEnded::UnderWay);
    first.sent();
    first.ended();
    let waiting = tokio::spawn(async move { (mark.requests_ended(now() + SETTLES).await, mark) });
    tokio::task::yield_now().await;
    drop(first);
    let (ended, mark) = waiting.await.unwrap();
    assert_eq!(ended, RequestsEnded::Yes);
    let LegacyAdmission::Moving(moved) = requests.admit(&LegacyAdmissionRequest {
        access: InstanceAccess::FollowsUp(&one),
        is_write: true,
        settles: SETTLES,
    }) else {
        panic!("it moves");
    };
    drop(mark);
    moved.await;
    assert!(admit(&requests, InstanceAccess::FollowsUp(&one), true).is_some(), "its move has ended");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_end_was_not_seen_holds_its_instance_for_a_time() {
    let requests = requests();
    let one = key("17");
    for (is_write, held) in [(false, false), (true, true)] {
        let mut request = admit(&requests, InstanceAccess::FollowsUp(&one), is_write).unwrap();
        request.sent();
        drop(request);
        let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move"));
        let ended = mark.requests_ended(now()).await;
        assert_eq!(matches!(ended, RequestsEnded::Unsettled(_)), held, "{is_write}");
    }
    let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move"));
    let began = now();
    assert_eq!(mark.requests_ended(began + 2 * SETTLES).await, RequestsEnded::Yes);
    assert!(now() >= began + SETTLES - Duration::from_secs(1));
    let unsent = admit(&requests, InstanceAccess::FollowsUp(&key("19")), true).unwrap();
    drop(unsent);
    drop(mark);
    assert!(requests.table().instances.is_empty(), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_create_under_way_may_be_about_the_instance() {
    let requests = requests();
    let one = key("17");
    let family = one.family.clone();
    let before = admit(&requests, InstanceAccess::Creates(&family), true).unwrap();
    let mark = requests.begin(&one).unwrap_or_else(|_| panic!("it does not move"));
    let _after = admit(&requests, InstanceAccess::Creates(&family), true).unwrap();
    assert_eq!(mark.requests_ended(now()).await, RequestsEnded::UnderWay);
    drop(before);
    assert_eq!(mark.requests_ended(now()).await, RequestsEnded::Yes, "a later create makes another one");
}

/// New files have joined its creator with another one, or listed an older id of it.
#[tokio::test(start_paused = true)]
async fn requests_from_before_the_oldest_id_changed_hold_their_instance() {
    let joined = Family::new("sales.make".into(), ["orders.create".into(), "offers.create".into()].into());
    let older = Family::new("orders.create".into(), ["older".into()].into());
    for family in [joined, older] {
        let requests = requests();
        let (before, now_key) = (key("17"), InstanceKey { family: family.clone(), id: "17".into() });
        let write = admit(&requests, InstanceAccess::FollowsUp(&before), true).unwrap();
        let mark = requests.begin(&now_key).unwrap_or_else(|_| panic!("it does not move yet"));
        assert_eq!(mark.requests_ended(now()).await, RequestsEnded::UnderWay, "a follow-up");
        assert!(admit(&requests, InstanceAccess::FollowsUp(&before), true).is_none(), "by the files before");
        assert!(admit(&requests, InstanceAccess::FollowsUp(&now_key), true).is_none(), "by the new files");
        assert!(requests.begin(&before).is_err(), "one move at a time");
        drop(write);
        assert_eq!(mark.requests_ended(now()).await, RequestsEnded::Yes);
        drop(mark);
        let create = admit(&requests, InstanceAccess::Creates(&before.family), true).unwrap();
        let mark = requests.begin(&now_key).unwrap_or_else(|_| panic!("it does not move"));
        assert_eq!(mark.requests_ended(now()).await, RequestsEnded::UnderWay, "a create");
        drop((create, mark));
        let mut unseen = admit(&requests, InstanceAccess::FollowsUp(&before), true).unwrap();
        unseen.sent();
        drop(unseen);
        let mark = requests.begin(&now_key).unwrap_or_else(|_| panic!("it does not move"));
        assert!(matches!(mark.requests_ended(now()).await, RequestsEnded::Unsettled(_)), "its end was not seen");
    }
}
