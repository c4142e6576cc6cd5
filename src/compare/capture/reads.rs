//! The reads of a run: as they were answered, and, in a rehearsal of a capture, the answers to them.
//!
//! Always true: a read of a rehearsal is answered by a reply to the same read: service, method, path, query and body
//! are equal. If there are several such replies, they are given in their order; if the rehearsal asks more often, the
//! last one is repeated. The host is not compared, because the services of the changed files may be elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::record::{Capture, CapturedCall, UnreadableCapture};
use crate::compare::effect::{Effect, EffectReply};
use crate::compare::observation::{Body, Intent};
use crate::expression::{parse_form, parse_json};

/// One read of a run, and what it was answered.
#[derive(Clone, Debug)]
pub struct AnsweredRead {
    /// What it asked, with stars in place of secrets.
    pub asked: Intent,
    /// The reply; `None` if none came.
    pub reply: Option<EffectReply>,
}

/// The reads of a capture.
pub struct CapturedReads {
    reads: Vec<CapturedRead>,
    /// Reads whose body is not known, by the key that they would have without a body.
    without_body: Vec<ReadKey>,
    /// How many reads with each key were answered.
    asked: Mutex<BTreeMap<ReadKey, usize>>,
}

struct CapturedRead {
    key: ReadKey,
    shown: String,
    reply: Option<EffectReply>,
}

/// Identifies what a read asks: equal for reads that ask the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ReadKey {
    service: String,
    method: String,
    /// The segments of the path, decoded after they were split, so that an encoded slash does not split one.
    path: Vec<String>,
    /// The query and the body, in a form in which the order of parameters and keys does not matter.
    query: String,
    body: String,
}

impl CapturedReads {
    /// The reads of a capture.
    ///
    /// # Errors
    /// A reply is no valid HTTP.
    pub fn of(capture: &Capture) -> Result<Self, UnreadableCapture> {
        let read = |call: &CapturedCall| {
            let service = call.service.as_ref().map_or("", |service| service.as_str());
            let body = call.body.text();
            Ok(CapturedRead {
                key: ReadKey::of(service, &call.method, &call.url, body.as_bytes()),
                shown: shown(service, &call.method, &call.url),
                reply: call.reply.as_ref().map(|reply| reply.reply()).transpose()?,
            })
        };
        let reads = capture.reads.iter().map(read).collect::<Result<_, UnreadableCapture>>()?;
        Ok(Self { reads, without_body: Vec::new(), asked: Mutex::default() })
    }

    /// The reads of a run, from which another run gets the same replies.
    pub fn of_run(reads: Vec<AnsweredRead>) -> Self {
        let read = |AnsweredRead { asked, reply }: AnsweredRead| {
            let service = asked.service.as_ref().map_or("", |service| service.as_str());
            CapturedRead {
                key: ReadKey::of(service, asked.method.as_str(), &asked.url, &body_of(&asked)),
                shown: shown(service, asked.method.as_str(), &asked.url),
                reply,
            }
        };
        Self { reads: reads.into_iter().map(read).collect(), without_body: Vec::new(), asked: Mutex::default() }
    }

    /// The replies to legacy's calls. Calls to a service without a name in the files are left out, because no read of a
    /// workflow can go there.
    pub fn of_legacy(calls: &[Effect]) -> Self {
        let (mut reads, mut without_body) = (Vec::new(), Vec::new());
        let is_whole = |reply: &&EffectReply| matches!(reply.body, Body::Whole(_));
        for call in calls {
            let Some(service) = call.service.as_ref().map(|service| service.as_str()) else { continue };
            let key = |body: &[u8]| ReadKey::of(service, call.method.as_str(), &call.url, body);
            match &call.body {
                Body::TooLarge => without_body.push(key(&[])),
                Body::Whole(body) => reads.push(CapturedRead {
                    key: key(body),
                    shown: shown(service, call.method.as_str(), &call.url),
                    reply: call.reply.as_ref().filter(is_whole).cloned(),
                }),
            }
        }
        Self { reads, without_body, asked: Mutex::default() }
    }

    /// Whether one of the reads is equal to this one, or may be, because its body is not known. If so and
    /// [`Self::answer`] has no reply, the reply was not kept.
    pub fn may_have_made(&self, asked: &Intent) -> bool {
        let service = asked.service.as_ref().map_or("", |service| service.as_str());
        let key = |body: &[u8]| ReadKey::of(service, asked.method.as_str(), &asked.url, body);
        let (whole, without_body) = (key(&body_of(asked)), key(&[]));
        self.reads.iter().any(|read| read.key == whole) || self.without_body.contains(&without_body)
    }

    /// The reply to a read.
    ///
    /// # Errors
    /// The capture has no reply to it. The error says so and names the read of the capture that is most like it.
    pub fn answer(&self, asked: &Intent) -> Result<EffectReply, String> {
        let service = asked.service.as_ref().map_or("", |service| service.as_str());
        let key = ReadKey::of(service, asked.method.as_str(), &asked.url, &body_of(asked));
        let same: Vec<&CapturedRead> = self.reads.iter().filter(|read| read.key == key).collect();
        let what = shown(service, asked.method.as_str(), &asked.url);
        let Some(last) = same.len().checked_sub(1) else {
            let nearest = self.reads.iter().max_by_key(|read| read.key.likeness(&key));
            let nearest = nearest.filter(|read| read.key.likeness(&key) > 0);
            let why = match nearest {
                Some(read) => format!("the nearest is `{}`", read.shown),
                None => "it has none of that service".to_owned(),
            };
            return Err(format!("the read `{what}` of step `{}` is not in the capture; {why}", asked.step));
        };
        let number = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let count = asked.entry(key).or_default();
            *count += 1;
            *count - 1
        };
        let reply = same.get(number.min(last)).and_then(|read| read.reply.clone());
        reply.ok_or_else(|| format!("the read `{what}` of step `{}` got no reply when it was captured", asked.step))
    }
}

/// The body of a read, as it is sent.
fn body_of(asked: &Intent) -> Vec<u8> {
    match (&asked.bytes, &asked.body) {
        (Some(bytes), _) => bytes.to_vec(),
        (None, Value::Null) => Vec::new(),
        (None, value) => value.to_string().into_bytes(),
    }
}

impl ReadKey {
    fn of(service: &str, method: &str, url: &str, body: &[u8]) -> Self {
        let (path, query) = path_and_query(url);
        let mut query: Vec<String> = match parse_form(query) {
            Value::Object(parameters) => {
                parameters.iter().map(|(name, value)| format!("{}={value}", Value::from(name.as_str()))).collect()
            }
            other => vec![other.to_string()],
        };
        query.sort();
        let decoded = |segment: &str| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let path = path.split('/').map(decoded).collect();
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
            path,
            query: query.join("&"),
            body: canonical_body(body),
        }
    }

    /// How much two reads have in common.
    fn likeness(&self, other: &Self) -> usize {
        if self.service != other.service {
            return 0;
        }
        let segments = self.path.iter().zip(&other.path).filter(|(a, b)| a == b).count();
        let equal = |same: bool, weight: usize| if same { weight } else { 0 };
        1 + segments
            + equal(self.method == other.method, 2)
            + equal(self.path == other.path, 8)
            + equal(self.query == other.query, 1)
    }
}

/// A JSON body with its keys in order; any other as text.
fn canonical_body(body: &[u8]) -> String {
    match parse_json(body) {
        Ok(value) => sorted(&value).to_string(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let ordered: BTreeMap<&String, Value> = members.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn path_and_query(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    (before.find('/').map_or("/", |at| &before[at..]), query)
}

fn shown(service: &str, method: &str, url: &str) -> String {
    let (path, query) = path_and_query(url);
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{method} {service}{path}{query}")
}
