//! The order, repetition and case of header fields, and the fields that tell legacy about the client.

use super::rig::{OK, Origin, Rig, Setup, get};
use crate::flag::Service;
use crate::limits::Limits;
use crate::listener::{ForwardedFields, ForwardedTrust, Forwarding, Network};

/// The names of a head's fields, in their order, including repetitions.
fn names(head: &str) -> Vec<&str> {
    head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect()
}

const REQUEST: &str = "GET /x HTTP/1.1\r\nHost: a\r\nX-First: 1\r\nConnection: keep-alive, X-Hop\r\nX-B: 1\r\nX-B: 2\r\n\
                       X-Hop: h\r\nX-B: 3\r\nTE: gzip\r\nAccept: */*\r\nX-Last: 1\r\n\r\n";
const REPLY: &str = "HTTP/1.1 200 OK\r\nDate: now\r\nX-Zero: 0\r\nConnection: keep-alive\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                     Keep-Alive: timeout=5\r\nContent-Length: 2\r\nETag: x\r\nX-End: 1\r\n\r\nok";

#[tokio::test]
async fn header_fields_stay_in_their_order_and_as_often_as_they_came() {
    let origin = Origin::always_answers(REPLY).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let reply = rig.ask(REQUEST).await;
    let seen = origin.only_request();
    assert_eq!(names(&seen.head)[..7], ["host", "x-first", "x-b", "x-b", "x-b", "accept", "x-last"], "{}", seen.head);
    assert_eq!(seen.fields("x-b"), ["1", "2", "3"]);
    let expected = ["date", "x-zero", "set-cookie", "set-cookie", "content-length", "etag", "x-end", "via"];
    assert_eq!(names(&reply.head), expected, "{}", reply.head);
    assert_eq!(reply.fields("set-cookie"), ["a=1", "b=2"]);
}

#[tokio::test]
async fn preserve_header_case_keeps_the_case_of_names() {
    let origin = Origin::always_answers(REPLY).await;
    let url = format!("http://{}", origin.address).parse().unwrap();
    let service = Service { preserve_header_case: true, ..Service::at("shop", [url]) };
    let rig = Rig::new(&origin, Setup { service: Some(service), ..Setup::default() }).await;
    // The second request goes over a pooled connection.
    for _ in 0..2 {
        let reply = rig.ask(REQUEST).await;
        let seen = origin.requests().pop().unwrap();
        assert_eq!(
            names(&seen.head)[..7],
            ["Host", "X-First", "X-B", "X-B", "X-B", "Accept", "X-Last"],
            "{}",
            seen.head
        );
        let expected = ["Date", "X-Zero", "Set-Cookie", "Set-Cookie", "Content-Length", "ETag", "X-End"];
        assert_eq!(names(&reply.head)[..7], expected, "{}", reply.head);
    }
}

#[tokio::test]
async fn a_reply_has_as_many_fields_as_the_limit_allows() {
    for (reply_fields_max, fields, passes) in [(100, 99, true), (100, 300, false), (301, 300, true), (20, 30, false)] {
        let more: String = (0..fields).map(|number| format!("X-{number}: {number}\r\n")).collect();
        let reply = format!("HTTP/1.1 200 OK\r\n{more}Content-Length: 2\r\n\r\nok");
        let origin = Origin::always_answers(reply.leak()).await;
        let limits = Limits { reply_fields_max, ..Limits::default() };
        let rig = Rig::new(&origin, Setup { limits, ..Setup::default() }).await;
        let reply = rig.ask(&get("/")).await;
        match passes {
            true => assert_eq!(reply.field(&format!("x-{}", fields - 1)), Some(&*format!("{}", fields - 1))),
            false => assert!(reply.status() == 502 && reply.text().contains("reply_fields_max"), "{}", reply.head),
        }
    }
}

fn forwarding(networks: &[&str], fields: ForwardedFields) -> Forwarding {
    let networks = networks.iter().map(|network| Network::parse(network).unwrap()).collect();
    Forwarding { trust: ForwardedTrust::Networks(networks), fields }
}

#[tokio::test]
async fn forwarded_fields_are_believed_only_from_trusted_networks() {
    let origin = Origin::always_answers(OK).await;
    let sent = "GET / HTTP/1.1\r\nHost: a.test:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                Forwarded: for=6.6.6.6;proto=https\r\n\r\n";
    let own = "for=127.0.0.1;proto=http;host=\"a.test:81\"";
    let both = format!("for=6.6.6.6;proto=https, {own}");
    use ForwardedFields::{Both, Rfc7239, XForwarded};
    for (networks, fields, x_for, x_proto, forwarded) in [
        (["10.0.0.0/8"], XForwarded, Some("127.0.0.1"), Some("http"), None),
        (["127.0.0.0/8"], XForwarded, Some("6.6.6.6, 127.0.0.1"), Some("https"), Some("for=6.6.6.6;proto=https")),
        (["10.0.0.0/8"], Rfc7239, None, None, Some(own)),
        (["127.0.0.1"], Rfc7239, Some("6.6.6.6"), Some("https"), Some(&*both)),
        (["10.0.0.0/8"], Both, Some("127.0.0.1"), Some("http"), Some(own)),
        (["127.0.0.0/8"], Both, Some("6.6.6.6, 127.0.0.1"), Some("https"), Some(&*both)),
    ] {
        let rig = Rig::new(&origin, Setup { forwarding: forwarding(&networks, fields), ..Setup::default() }).await;
        rig.ask(sent).await;
        let seen = origin.requests().pop().unwrap();
        let found = (seen.field("x-forwarded-for"), seen.field("x-forwarded-proto"), seen.field("forwarded"));
        assert_eq!(found, (x_for, x_proto, forwarded), "{networks:?} {fields:?}");
    }
}

/// WSGI and CGI servers read `_` in a name as `-`.
#[tokio::test]
async fn forwarded_fields_in_another_spelling_are_passed_on_only_from_trusted_networks() {
    let origin = Origin::always_answers(OK).await;
    let sent = "GET / HTTP/1.1\r\nHost: a.test\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\n\
                x_forwarded-host: evil\r\nx_other: kept\r\n\r\n";
    let spelled = ["x_forwarded_for", "x-forwarded_proto", "x_forwarded-host"];
    for (networks, are_passed_on) in [("10.0.0.0/8", false), ("127.0.0.0/8", true)] {
        for fields in [ForwardedFields::XForwarded, ForwardedFields::Rfc7239] {
            let rig =
                Rig::new(&origin, Setup { forwarding: forwarding(&[networks], fields), ..Setup::default() }).await;
            rig.ask(sent).await;
            let seen = origin.requests().pop().unwrap();
            assert!(spelled.iter().all(|name| seen.field(name).is_some() == are_passed_on), "{networks}: {seen:?}");
            assert_eq!(seen.field("x_other"), Some("kept"));
        }
    }
}

#[tokio::test]
async fn trust_forwarded_changes_for_new_connections() {
    let origin = Origin::always_answers(OK).await;
    let rig = Rig::new(&origin, Setup::default()).await;
    let mut old = rig.connect().await;
    let sent = get("/").replace("\r\n\r\n", "\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
    old.ask(&sent).await;
    rig.forwarding.store(std::sync::Arc::new(forwarding(&["127.0.0.0/8"], ForwardedFields::XForwarded)));
    old.ask(&sent).await;
    rig.ask(&sent).await;
    let seen = origin.requests();
    let all: Vec<_> = seen.iter().map(|request| request.field("x-forwarded-for").unwrap()).collect();
    assert_eq!(all, ["127.0.0.1", "127.0.0.1", "6.6.6.6, 127.0.0.1"]);
}
