//! Deserialises an event: its kind determines the group that its content belongs to.
//!
//! Written by hand, because serde's derived `untagged` buffers the content in a form that breaks arbitrary-precision
//! numbers.

use std::fmt;
use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, VariantAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::{
    AnswerEvent, CheckpointEvent, ChildEvent, ConflictEvent, ControlEvent, EndingEvent, Event, LockEvent, StepEvent,
    WaitEvent,
};

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Event", &[], EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: its kind and its content")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Event, A::Error> {
        let (kind, content) = data.variant_seed(KindSeed)?;
        let tagged = |kind, content| Tagged { kind, content };
        match kind {
            KindGroup::RunStarted => content.newtype_variant().map(|started| Event::RunStarted(Arc::new(started))),
            KindGroup::StepStarted => content.newtype_variant().map(Event::StepStarted),
            KindGroup::StepFinished => content.newtype_variant().map(Event::StepFinished),
            KindGroup::RetryScheduled => content.newtype_variant().map(Event::RetryScheduled),
            KindGroup::Step(kind) => StepEvent::deserialize(tagged(kind, content)).map(Event::Step),
            KindGroup::Wait(kind) => WaitEvent::deserialize(tagged(kind, content)).map(Event::Wait),
            KindGroup::Lock(kind) => LockEvent::deserialize(tagged(kind, content)).map(Event::Lock),
            KindGroup::Child(kind) => ChildEvent::deserialize(tagged(kind, content)).map(Event::Child),
            KindGroup::Checkpoint(kind) => CheckpointEvent::deserialize(tagged(kind, content)).map(Event::Checkpoint),
            KindGroup::Conflict(kind) => ConflictEvent::deserialize(tagged(kind, content)).map(Event::Conflict),
            KindGroup::Control(kind) => ControlEvent::deserialize(tagged(kind, content)).map(Event::Control),
            KindGroup::Answer(kind) => AnswerEvent::deserialize(tagged(kind, content)).map(Event::Answer),
            KindGroup::Ending(kind) => EndingEvent::deserialize(tagged(kind, content)).map(Event::Ending),
        }
    }
}

/// A kind, and the group that it belongs to.
enum KindGroup {
    RunStarted,
    StepStarted,
    StepFinished,
    RetryScheduled,
    Step(&'static str),
    Wait(&'static str),
    Lock(&'static str),
    Child(&'static str),
    Checkpoint(&'static str),
    Conflict(&'static str),
    Control(&'static str),
    Answer(&'static str),
    Ending(&'static str),
}

impl KindGroup {
    fn of(name: &str) -> Option<Self> {
        let within = |kinds: &'static [&'static str]| kinds.iter().copied().find(|kind| *kind == name);
        Some(match name {
            "run_started" => KindGroup::RunStarted,
            "step_started" => KindGroup::StepStarted,
            "step_finished" => KindGroup::StepFinished,
            "retry_scheduled" => KindGroup::RetryScheduled,
            _ => within(StepEvent::KINDS)
                .map(KindGroup::Step)
                .or_else(|| within(AnswerEvent::KINDS).map(KindGroup::Answer))
                .or_else(|| within(EndingEvent::KINDS).map(KindGroup::Ending))
                .or_else(|| within(WaitEvent::KINDS).map(KindGroup::Wait))
                .or_else(|| within(LockEvent::KINDS).map(KindGroup::Lock))
                .or_else(|| within(ChildEvent::KINDS).map(KindGroup::Child))
                .or_else(|| within(CheckpointEvent::KINDS).map(KindGroup::Checkpoint))
                .or_else(|| within(ConflictEvent::KINDS).map(KindGroup::Conflict))
                .or_else(|| within(ControlEvent::KINDS).map(KindGroup::Control))?,
        })
    }
}

/// Deserialises a kind without copying its name.
struct KindSeed;

impl<'de> DeserializeSeed<'de> for KindSeed {
    type Value = KindGroup;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<KindGroup, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KindSeed {
    type Value = KindGroup;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kind of an event")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<KindGroup, E> {
        KindGroup::of(name).ok_or_else(|| E::custom(format_args!("unknown kind of event `{name}`")))
    }
}

/// Deserialises a group from a kind that was read already and the content that follows.
struct Tagged<V> {
    kind: &'static str,
    content: V,
}

impl<'de, V: VariantAccess<'de>> Deserializer<'de> for Tagged<V> {
    type Error = V::Error;

    fn deserialize_any<W: Visitor<'de>>(self, visitor: W) -> Result<W::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        <W: Visitor<'de>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: VariantAccess<'de>> EnumAccess<'de> for Tagged<V> {
    type Error = V::Error;
    type Variant = V;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, V), Self::Error> {
        let kind: StrDeserializer<'_, V::Error> = serde::de::IntoDeserializer::into_deserializer(self.kind);
        Ok((seed.deserialize(kind)?, self.content))
    }
}
