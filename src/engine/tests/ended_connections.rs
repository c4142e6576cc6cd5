//! Calls to a service over HTTP/2 that ends each connection after a few requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Uri};
use tokio_util::sync::CancellationToken;

use super::harness::TIMEOUT;
use crate::engine::kill_switch::KillSwitch;
use crate::engine::ports::client::{Executor, Outgoing, SendingClient};
use crate::engine::ports::echoed_secrets::EchoedSecrets;
use crate::engine::ports::service::ServiceLimits;
use crate::flag::{HttpVersion, Service};
use crate::limits::Limits;
use crate::names::RunId;
use crate::transport::AddressRegistry;
use crate::transport::ending_origin::EndingOrigin;
use crate::workflow::{AttemptResult, EffectClass, Mode, RecordedHeaders};

const CALLERS: usize = 40;
const CALLS: usize = 10;

/// Sends one call that must not be repeated.
async fn call(client: &SendingClient, service_limits: &Arc<ServiceLimits>, number: usize) -> AttemptResult {
    let uri: Uri = format!("{}/pay", service_limits.first_url()).parse().unwrap();
    let call = Outgoing {
        method: Method::POST,
        uris: vec![uri],
        headers: HeaderMap::new(),
        body: Bytes::from(number.to_string()),
        timeout: TIMEOUT,
        left: None,
        reserved: TIMEOUT,
        repeatable: false,
        mode: Mode::Real,
        run: RunId(uuid::Uuid::from_u128(7)),
        caller: "step a.pay".into(),
        service_limits: service_limits.clone(),
        lease_proof: None,
        withdrawal: CancellationToken::new(),
        recorded_headers: Arc::new(RecordedHeaders::All),
        secrets: EchoedSecrets::default(),
        streaming: None,
        read: None,
        whole: None,
    };
    client.perform(EffectClass::Shared, call).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_is_done_once() {
    for (requests, streams) in [(7, 100), (7, 4), (1, 100)] {
        let origin = EndingOrigin::start(requests, streams).await;
        let url: Uri = format!("http://{}", origin.address).parse().unwrap();
        let service = Service { http: HttpVersion::Http2, ..Service::at("bank", [url]) };
        let service_limits = ServiceLimits::of(&service, &Limits::default(), &AddressRegistry::new()).or_existing(None);
        let client = SendingClient::new(&Limits::default(), &[7; 32], Mode::Real, KillSwitch::new());
        let caller = |caller: usize| {
            let (client, service_limits) = (client.clone(), service_limits.clone());
            tokio::spawn(async move {
                for number in 0..CALLS {
                    let result = call(&client, &service_limits, caller * CALLS + number).await;
                    assert!(matches!(result, AttemptResult::Reply { status: 200, .. }), "{result:?}");
                }
            })
        };
        for called in join_all((0..CALLERS).map(caller)).await {
            called.unwrap();
        }
        let mut done = BTreeMap::<Vec<u8>, usize>::new();
        origin.done.lock().unwrap().iter().for_each(|body| *done.entry(body.clone()).or_default() += 1);
        assert_eq!(done.len(), CALLERS * CALLS, "{requests} on each connection, {streams} at the same time");
        assert!(done.values().all(|times| *times == 1), "none was done twice");
    }
}
