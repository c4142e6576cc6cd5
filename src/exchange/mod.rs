//! PURE. The types that proxy, shadow executor and engine exchange.
//!
//! The question it answers: "what does one side need to know of the other?" The arms are tower services over these
//! types, so `proxy` and `shadow` do not import the engine, and the engine does not import them.
//! Always true: an [`Answered`] exists only once the reply does; a [`ComparisonTicket`] ends in exactly one outcome.

mod adoption;
mod affinity;
mod answer_body;
mod answered;
mod arm;
mod branch;
mod effects;
mod engine_answered;
mod instance_requests;
mod intents_below;
mod late_failure;
mod legacy_calls;
mod offer;
mod offered_request;
mod reads;
mod rehearsed;
mod repeat;
mod request_effects;
mod request_value;
mod set_in_use;
mod twins;
mod uncompared_call;

pub use adoption::{
    Adopter, AdoptionAnswer, AdoptionRequest, InFlightAtLegacyCounter, LegacyAdmission, LegacyAdmissionRequest,
    OpenWriteCounter, OpenWriteGuard, RequestAtLegacy,
};
pub use affinity::{
    Affinity, ArmUnknown, CreatedByLegacy, EarlierKeys, KeysOfLegacy, KeysOfOtherEngines, KeysOfOtherEnginesVersion,
    KnownBody, KnownKeysOfOtherEngines, LegacyTake, NotedInstance, Remembered,
};
pub use answer_body::{AnswerBody, ServiceReply, StreamedBody};
pub use answered::{Answered, ForCandidate, RequestCopy, RequestDigests};
pub use arm::{
    ABANDONED_BEFORE, Abandoned, ArmAnswer, ArmReply, ArmRequest, EngineArm, FILES_CHANGED, FROZEN,
    LEGACY_TOOK_FIRST_TRY, MayBegin, NO_FIRST_TRY, ProblemDocument, RunReport, Source,
};
pub use branch::{Branch, BranchBelow};
pub use effects::{EffectObserver, EffectRegistry, EffectWatch, RequestToWatch, SentBody};
pub use engine_answered::{AnswerUnknown, EngineAnswered, ReverseRequest};
pub use instance_requests::{AnnouncedRequestObserver, InstanceAccess, OpenRequest, RequestNumber, TimeAtLegacy};
pub use intents_below::IntentsBelow;
pub use late_failure::LateFailureObserver;
pub use legacy_calls::LegacyCalls;
pub use offer::{
    ComparisonOutcome, ComparisonTicket, EngineAnswer, Offer, Served, ServedObserver, TicketCounter, UnbegunTicket,
};
pub use offered_request::OfferedRequest;
pub use reads::{KnownInstance, Reads, RecordedReads, ReplayedReads};
pub use rehearsed::{ChildEvents, REHEARSED_CHILDREN_MAX, REHEARSED_EVENTS_MAX, RehearsedEvents, RunEvents};
pub use repeat::{NotRepeated, REPEAT_HEADER, RepeatReply, RepeatRequest};
pub use request_effects::{CallTarget, EffectsSoFar, OpenCallsView, RequestEffects, UnattributedWrites};
pub use request_value::{body_value, decoded_body_value, headers_value, query_value, request_value};
pub use set_in_use::SetInUse;
pub use twins::{PerformedCalls, Twins};
pub use uncompared_call::{UncomparedCalls, UncomparedReason};
