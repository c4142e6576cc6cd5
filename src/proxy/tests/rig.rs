//! A test rig: a proxy on real sockets, with a scripted origin and fakes for everything else.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::super::{Drained, EgressParts, Proxy, ProxyListener, ProxyParts};
pub use super::origin::Origin;
use super::wire::{Message, Wire, bounded};
use crate::exchange::{
    Abandoned, Answered, ArmAnswer, ArmReply, ArmRequest, ArmUnknown, ComparisonOutcome, ComparisonTicket,
    CreatedByLegacy, EffectRegistry, Offer, OfferedRequest, ProblemDocument, Remembered, RunReport, Served,
    ServedObserver, Source, TicketCounter,
};
use crate::flag::{
    Arm, FlagSet, Freeze, Instance, InstanceKeySource, Owner, RetryKey, Route, RouteMatch, Service, State, StateInputs,
};
use crate::limits::Limits;
use crate::listener::{Forwarding, Listener};
use crate::names::RouteId;
use crate::transport::AddressRegistry;

/// Fakes behind the proxy's traits, which record their calls.
#[derive(Default)]
pub struct Fakes {
    pub outcomes: Mutex<Vec<ComparisonOutcome>>,
    pub strata: Mutex<Vec<Option<String>>>,
    /// How many tickets were opened. Each has a number, from 0.
    pub opened: AtomicU64,
    /// The number of the ticket, for each time that one was settled.
    pub settled: Mutex<Vec<u64>>,
    pub without_twin: AtomicU64,
    pub offered: Mutex<Vec<Answered>>,
    pub served: Mutex<Vec<Served>>,
    pub asked: Mutex<Vec<ArmRequest>>,
    pub answers: Mutex<VecDeque<ArmReply>>,
    pub owner: Mutex<Option<Owner>>,
    pub first_try: Mutex<Option<Result<Option<Arm>, ArmUnknown>>>,
    /// What the store knows of particular keys.
    pub first_tries: Mutex<HashMap<RetryKey, Arm>>,
    /// What this process remembers of the next keys that are looked up, before `first_try` applies.
    pub remembered_next: Mutex<VecDeque<Remembered>>,
    pub keys_of_legacy: Mutex<Vec<RetryKey>>,
    pub engine_owns: AtomicBool,
    /// Whether the engine takes the key between the look-up and the attempt to record it as legacy's.
    pub engine_takes_first: AtomicBool,
    /// Whether the engine has the requests that the store has as legacy's.
    pub is_unconfirmed: AtomicBool,
    pub records_no_keys: AtomicBool,
    /// Whether engines of other processes may have taken keys that were not read.
    pub keys_are_unread: AtomicBool,
    pub served_unnoted: AtomicU64,
    /// Whether the store fails to say if a key was noted earlier.
    pub store_is_silent: AtomicBool,
    pub created: Mutex<Vec<CreatedByLegacy>>,
    pub queue_full: AtomicBool,
    /// Whether clients that leave without an answer have waited longer than those of legacy do.
    pub waits_are_long: AtomicBool,
    /// How many clients left without an answer.
    pub left: AtomicU64,
    pub changed: tokio::sync::Notify,
}

impl Fakes {
    /// Waits until `look` finds something.
    pub async fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        bounded(what, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(self) {
                    return found;
                }
                changed.await;
            }
        })
        .await
    }
    /// Waits for the only comparison and returns how it ended.
    pub async fn outcome(&self) -> ComparisonOutcome {
        let one = self.until("an outcome", |f| f.outcomes.lock().unwrap().first().copied()).await;
        assert_eq!(self.outcomes.lock().unwrap().len(), 1, "one outcome for one ticket");
        one
    }
}

/// What the ticket with this number is settled with.
struct CounterOfTicket {
    number: u64,
    fakes: Arc<Fakes>,
}

impl TicketCounter for CounterOfTicket {
    fn settle(&self, request: &OfferedRequest, outcome: ComparisonOutcome) {
        self.fakes.strata.lock().unwrap().push(request.stratum());
        self.fakes.settled.lock().unwrap().push(self.number);
        self.fakes.outcomes.lock().unwrap().push(outcome);
        self.fakes.changed.notify_waiters();
    }
    fn count_without_twin(&self, _request: &OfferedRequest) {
        self.fakes.without_twin.fetch_add(1, SeqCst);
    }
}

/// Settles every offer as matched.
pub struct FakeOffer(pub Arc<Fakes>);

impl Offer for FakeOffer {
    fn open(&self, request: OfferedRequest) -> ComparisonTicket {
        let number = self.0.opened.fetch_add(1, SeqCst);
        let counter = CounterOfTicket { number, fakes: self.0.clone() };
        ComparisonTicket::new(request, Arc::new(counter))
    }
    fn offer(&self, ticket: ComparisonTicket, answered: Answered) {
        self.0.offered.lock().unwrap().push(answered);
        ticket.settle(ComparisonOutcome::Matched);
    }
    fn check(&self, _answered: crate::exchange::EngineAnswered) {}
    fn has_room(&self, _route: &RouteId) -> bool {
        !self.0.queue_full.load(SeqCst)
    }
}

impl ServedObserver for Fakes {
    fn served(&self, _route: &RouteId, _files_version: u64, served: Served) {
        self.served.lock().unwrap().push(served);
        self.changed.notify_waiters();
    }
    fn exceeds_usual_wait_at_legacy(&self, _route: &RouteId, _waited: Duration) -> bool {
        self.left.fetch_add(1, SeqCst);
        self.changed.notify_waiters();
        self.waits_are_long.load(SeqCst)
    }
}

/// An answer of the engine.
pub fn engine_says(body: &'static str) -> ArmReply {
    ArmReply::Answer(ArmAnswer {
        status: StatusCode::CREATED,
        headers: [(http::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect(),
        body: body.into(),
        report: RunReport::default(),
    })
}

pub fn engine_gives_back() -> ArmReply {
    ArmReply::Abandoned(Abandoned { reason: "test", run: None })
}

pub fn engine_refuses(kind: &str) -> ArmReply {
    let problem = ProblemDocument {
        status: 503,
        kind: kind.into(),
        title: "No".into(),
        detail: "It was not done.".into(),
        source: Source::Workflow,
        run: None,
        retry_after_s: Some(7),
        shared_step_begun: Some(false),
    };
    ArmReply::Refused(problem, RunReport::default())
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"id\":\"o-17\"}";

/// How a rig is set up.
pub struct Setup {
    pub state: State,
    pub limits: Limits,
    pub forwarding: Forwarding,
    pub freeze: Freeze,
    /// Whether the routes were lowered by a flip that the store does not have yet.
    pub returns_at_restart: bool,
    pub requests_max: Option<u64>,
    /// The service for legacy; `None`: a service with default settings at the origin's address.
    pub service: Option<Service>,
    pub listeners: Vec<Listener>,
    /// The size of the send buffers of the clients' connections; `None`: the kernel's, which may grow.
    pub send_buffer_bytes: Option<u32>,
    pub identity_headers: Vec<http::HeaderName>,
    pub edit_route: fn(&mut Route),
    /// Whether requests of routes with a workflow wait at first, as in a process that takes over.
    pub waits_for_predecessor: bool,
    /// Is told of each request before legacy gets it, so that the calls that legacy makes can be attributed to it.
    pub effect_registry: Option<Arc<dyn EffectRegistry>>,
    /// Set for the proxy behind the egress listener.
    pub egress: Option<EgressParts>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            state: State::Off,
            limits: Limits::default(),
            forwarding: Forwarding::default(),
            freeze: Freeze::No,
            returns_at_restart: false,
            requests_max: None,
            service: None,
            listeners: vec![Listener::plain("127.0.0.1:0".parse().unwrap())],
            send_buffer_bytes: None,
            identity_headers: Vec::new(),
            edit_route: |_| {},
            waits_for_predecessor: false,
            effect_registry: None,
            egress: None,
        }
    }
}

pub struct Rig {
    pub address: SocketAddr,
    pub addresses: Vec<SocketAddr>,
    pub flags: Arc<ArcSwap<FlagSet>>,
    pub fakes: Arc<Fakes>,
    pub forwarding: Arc<ArcSwap<Forwarding>>,
    pub proxy: Proxy,
    pub shutdown: CancellationToken,
    pub serving: JoinHandle<Drained>,
}

fn service(address: SocketAddr, setup: &Setup) -> Arc<Service> {
    let url = format!("http://{address}").parse().unwrap();
    let service = setup.service.clone().unwrap_or_else(|| Service::at("shop", [url]));
    Arc::new(Service { requests_max: setup.requests_max, ..service })
}

fn route(id: &str, method: Method, path: &str, legacy: &Arc<Service>, setup: &Setup) -> Arc<Route> {
    let mut route = Route {
        workflow: Some("work".into()),
        declared: setup.state,
        caller: vec![http::header::AUTHORIZATION].into(),
        ..Route::without_workflow(id.into(), RouteMatch { method, path: path.into(), host: None }, legacy.clone())
    };
    (setup.edit_route)(&mut route);
    Arc::new(route)
}

/// A flag set where `POST /orders` creates an instance and `GET /orders/{id}` follows.
pub fn flag_set(origin: SocketAddr, setup: &Setup, generation: u64) -> FlagSet {
    let legacy = service(origin, setup);
    let mut create = Route::clone(&route("orders.create", Method::POST, "/orders", &legacy, setup));
    let id = || serde_json_path::JsonPath::parse("$.id").unwrap().into();
    create.instance.get_or_insert_with(|| Instance::Creates { id: id() });
    let mut show = Route::clone(&route("orders.show", Method::GET, "/orders/{id}", &legacy, setup));
    show.instance =
        Some(Instance::Follows { creator: "orders.create".into(), key: InstanceKeySource::Path("id".into()) });
    let plain = route("plain", Method::GET, "/plain", &legacy, setup);
    let routes = vec![Arc::new(create), Arc::new(show), plain];
    let inputs = |route: &Arc<Route>| {
        let returns_at_restart = setup.returns_at_restart;
        (route.id.clone(), StateInputs { returns_at_restart, ..StateInputs::declared(route) })
    };
    let inputs: BTreeMap<_, _> = routes.iter().map(inputs).collect();
    let services = BTreeMap::from([(legacy.name.clone(), legacy.clone())]);
    FlagSet::new(generation, routes, &inputs, legacy, services, setup.freeze, [7; 32])
}

impl Rig {
    /// A proxy in front of an origin: `POST /orders` creates an instance, `GET /orders/{id}` follows.
    pub async fn new(origin: &Origin, setup: Setup) -> Self {
        Self::at(origin.address, setup).await
    }
    pub async fn at(origin: SocketAddr, setup: Setup) -> Self {
        let flags = Arc::new(ArcSwap::from_pointee(flag_set(origin, &setup, 1)));
        let fakes = Arc::new(Fakes { owner: Mutex::new(Some(Owner::NoPin)), ..Fakes::default() });
        let engine = fakes.clone();
        let engine = service_fn(move |request: ArmRequest| {
            let fakes = engine.clone();
            async move {
                fakes.asked.lock().unwrap().push(request);
                fakes.changed.notify_waiters();
                let answer = fakes.answers.lock().unwrap().pop_front();
                match answer {
                    Some(answer) => Ok::<_, Infallible>(answer),
                    None => std::future::pending().await,
                }
            }
        });
        let forwarding = Arc::new(ArcSwap::from_pointee(setup.forwarding.clone()));
        let proxy = Proxy::new(ProxyParts {
            waits_for_predecessor: setup.waits_for_predecessor,
            flags: flags.clone(),
            limits: Arc::new(setup.limits),
            addresses: AddressRegistry::new(),
            forwarding: forwarding.clone(),
            identity_headers: setup.identity_headers,
            engine: BoxCloneSyncService::new(engine),
            affinity: fakes.clone(),
            offer: Arc::new(FakeOffer(fakes.clone())),
            served_observer: fakes.clone(),
            effect_registry: setup.effect_registry.clone(),
            access_log: None,
            workers: Arc::default(),
            egress: setup.egress,
        });
        let mut listeners = Vec::new();
        for listener in &setup.listeners {
            let socket = TcpSocket::new_v4().unwrap();
            if let Some(bytes) = setup.send_buffer_bytes {
                // Accepted connections inherit it.
                socket.set_send_buffer_size(bytes).unwrap();
            }
            socket.bind(listener.address).unwrap();
            listeners.push(ProxyListener::new(socket.listen(1024).unwrap(), listener));
        }
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.address().unwrap()).collect();
        let address = addresses[0];
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let served = proxy.clone();
        let serving = tokio::spawn(async move { served.serve(listeners, stop).await });
        Self { address, addresses, flags, fakes, forwarding, proxy, shutdown, serving }
    }
    pub async fn connect(&self) -> Wire {
        Wire::new(bounded("connecting", TcpStream::connect(self.address)).await.unwrap())
    }
    /// Sends one request on a new connection and returns the reply.
    pub async fn ask(&self, request: &str) -> Message {
        self.connect().await.ask(request).await
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
}
pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
