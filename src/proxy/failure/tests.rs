use super::*;

/// The reasons of answers that the proxy makes itself.
fn reasons() -> Vec<&'static str> {
    let refused = || ConnectError::Refused(std::io::Error::other("refused"));
    let failures = [
        Failure::Head(HeadRefusal::Ambiguous("two Host fields")),
        Failure::Head(HeadRefusal::Connect),
        Failure::Head(HeadRefusal::Trace),
        Failure::Head(HeadRefusal::Expectation),
        Failure::Head(HeadRefusal::Loop),
        Failure::HeadTooLarge,
        Failure::Path(PathRefusal::Ambiguous),
        Failure::Target,
        Failure::Body,
        Failure::TooLarge,
        Failure::RetryTooLarge,
        Failure::Overdue(Overdue::Client),
        Failure::Overdue(Overdue::ClientSlow),
        Failure::Overdue(Overdue::Upload),
        Failure::Overdue(Overdue::FirstByte),
        Failure::Overdue(Overdue::Total),
        Failure::OverdueUnsent(WaitedFor::Service),
        Failure::OverdueUnsent(WaitedFor::Route),
        Failure::OverdueUnsent(WaitedFor::Store),
        Failure::Overloaded,
        Failure::RouteBusy,
        Failure::Legacy(CallError::Busy),
        Failure::Legacy(CallError::Unreachable(refused())),
        Failure::Legacy(CallError::Unreachable(ConnectError::Unresolved(std::io::Error::other("no such name")))),
        Failure::Legacy(CallError::Unreachable(ConnectError::TimedOut)),
        Failure::Legacy(CallError::Unreachable(ConnectError::Tls("expired".into()))),
        Failure::Legacy(CallError::NotProcessed),
        Failure::Switched,
        Failure::NotSwitched,
        Failure::NoSafeArm("the store did not answer"),
        Failure::FirstTryUnknown,
        Failure::KeyNotNoted,
        Failure::NoStore(NoStore::NotTakenOver),
        Failure::NoStore(NoStore::HandedOver),
        Failure::Precondition,
        Failure::EngineSilent,
        Failure::EngineGaveBack,
    ];
    // A `hyper::Error` cannot be made here.
    let closed = "legacy-closed";
    let failures = failures.into_iter().chain(EgressRefusal::ALL.map(Failure::Egress));
    let kinds = failures.map(|failure| describe(&failure).1);
    let mut reasons: Vec<_> = kinds.chain([closed, HEAD_TOO_LARGE, MALFORMED_HEAD, HEAD_TIMEOUT]).collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

#[test]
fn a_request_whose_time_is_over_before_it_is_sent_is_told_what_it_waited_for() {
    let details = [WaitedFor::Service, WaitedFor::Route, WaitedFor::Store].map(|waited_for| {
        let (status, kind, _, detail, closes) = describe(&Failure::OverdueUnsent(waited_for));
        assert_eq!((status.as_u16(), kind, closes), (504, "timeout-not-sent", true));
        detail
    });
    let (service, route, store) = ("a connection to it", "turn at its route", "to take over the store");
    for (detail, own) in details.iter().zip([service, route, store]) {
        let named = [service, route, store].map(|what| detail.contains(what));
        assert_eq!(named, [service, route, store].map(|what| what == own), "{detail}");
        assert!(detail.ends_with("so trying again cannot do the work twice."), "{detail}");
    }
}

#[test]
fn the_reference_lists_every_reason() {
    let page = include_str!("../../docs/failures.md");
    let (_, section) = page.split_once("## Problems that Pointsman answers itself").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    let mut listed: Vec<_> = rows.filter(|first| *first != "reason").collect();
    listed.sort_unstable();
    assert_eq!(listed, reasons());
}
