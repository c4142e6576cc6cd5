//! PURE. Compares what both arms did with one request.
//!
//! The question it answers: "did both arms do the same, and where not?" A pair is compared in this order
//! (`comparison`): first the status; then legacy's ids are bound one-to-one to the engine's (`id_map`) over both bodies
//! and over the calls that legacy made and the engine would make (`effects`); with these ids the headers are compared,
//! then, if the statuses are of one class, both bodies by their type (`parsed_body`: JSON, and texts that have a
//! `structure`, in `walk`, other text in `text`, the rest byte by byte), then the calls; then the intents, if both
//! observations have some; last, the route's own asserts are evaluated.
//!
//! Always true: an [`Observation`] is frozen when it is made; a [`Comparison`] is bounded in time, size and depth, and
//! the values that it shows are redacted; `ignored` is a verdict of its own and stays counted, by rule; a pair that
//! could not be judged is never a match.
//!
//! Before anything of a pair is stored, its secrets are learned from all of it (`pair_secrets`).
//!
//! A whole pair can be kept, without anything secret, to be rehearsed again without the services (`capture`). What is
//! kept of a pair that differs can be compared again under other rules (`kept`), from which rules are proposed
//! that explain the differences of a route (`suggest`).
//!
//! `flag` and `shadow` choose the requests that are compared; `evidence` counts the results.

mod allowances;
mod answer_scope;
mod assert;
mod awaited;
mod body_rules;
mod bounds;
mod capture;
mod cause;
mod compared_body;
mod compared_parts;
mod comparison;
mod condition;
mod context;
mod correspond;
mod covering;
mod decode;
mod differing_elements;
mod digest;
mod draft;
mod earlier_ids;
mod effect;
mod effects;
mod equal;
mod fast_hash;
mod findings;
mod fingerprint;
mod header_ids;
mod header_names;
mod headers;
mod id_filter;
mod id_form;
mod id_map;
mod id_words;
mod json_reader;
mod json_tree;
mod kept;
mod line_secrets;
mod magnitude;
mod multipart;
mod node;
mod not_known;
mod nothing_compared;
mod number;
mod observation;
mod other_bodies;
mod pair;
mod pair_parts;
mod pair_secrets;
mod pairing;
mod parsed_body;
mod path_matcher;
mod quantity;
mod redact;
mod repeated_keys;
mod repeated_report;
mod report_as;
mod rule_conditions;
mod rule_drafts;
mod rule_path;
mod rule_texts;
mod rule_uses;
mod rule_warnings;
mod rules;
mod rules_by_node;
mod sample;
mod secret_lines;
mod secret_source;
mod section_secrets;
mod shown_condition;
mod shown_draft;
mod structure;
mod structure_text;
mod suggest;
mod text;
mod text_lines;
mod text_rules;
mod times;
mod times_in_text;
mod uncompared_headers;
mod unparsable;
mod value_hash;
mod value_path;
mod verdict;
mod walk;
mod well_formed;
mod whole_body;

#[cfg(test)]
mod condition_tests;
#[cfg(test)]
mod effects_in_asserts_tests;
#[cfg(test)]
mod header_id_tests;
#[cfg(test)]
mod id_map_tests;
#[cfg(test)]
mod id_tests;
#[cfg(test)]
mod json_form_tests;
#[cfg(test)]
mod pair_secret_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rule_warning_tests;
#[cfg(test)]
mod shortcut_tests;
#[cfg(test)]
mod structure_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;
#[cfg(test)]
mod tree_tests;

pub use allowances::Allowances;
pub use answer_scope::answer_scope;
pub use awaited::AwaitedIntents;
pub use bounds::{BoundExceeded, CompareBounds};
pub use capture::{
    AnsweredRead, CAPTURE_VERSION, Capture, CaptureContext, CapturedBody, CapturedCall, CapturedPair, CapturedReads,
    CapturedReply, CapturedRequest, HarError, InstanceOfPair, NotCaptured, RouteOf, UnreadableCapture, capture,
    pairs_of_har,
};
pub use comparison::{compare, compare_in_instance};
pub use decode::decoded_body;
pub use differing_elements::DifferingElements;
pub use draft::{CompareContext, NumbersDraft, RulesDraft, StatusDraft};
pub use earlier_ids::{BoundIds, EarlierIds, IdSubject};
pub use effect::{Effect, EffectReply, RecordedParts};
pub use effects::{
    CallRole, CallTemplate, CorrespondingCall, EffectCoverage, EffectRulesDraft, IntentCounts, StepCoverage,
    any_spelling, authority_of_url, corresponding_call, has_dot_segments, path_of_url, path_without_values,
    url_without_values,
};
pub use fingerprint::is_of_cut_list;
pub use kept::{
    CallPair, CallText, ComparedTo, KeepContext, KeptCall, KeptPair, KeptReply, NotJudged, NotKept, PairRecord,
    Rejudged, SensitiveParts, keep, rejudge,
};
pub use magnitude::largest_distance;
pub use not_known::{NOT_KNOWN, UndecidedValues};
pub use number::NumberForm;
pub use observation::{Body, Intent, Observation};
pub use pair::{HidesSensitive, InstanceIds, Pair};
pub use pair_parts::{MessageBody, PairMessage, PairParts, headers_of};
pub use pair_secrets::quoted_secrets;
pub use redact::{redact, shorten};
pub use rule_drafts::{AssertDraft, IdDraft, IgnoreDraft, ToleranceDraft, UnorderedDraft};
pub use rule_texts::is_rule_note;
pub use rules::Rules;
pub use sample::sample_text;
pub use suggest::{
    HiddenValues, StricterRule, SuggestContext, SuggestGroup, SuggestSample, SuggestedRule, Suggestions, Unexplained,
    suggest,
};
pub use text_rules::{TextRulesDraft, TimesDraft};
pub use uncompared_headers::UncomparedHeader;
pub use value_path::may_stand_for_several_names;
pub use verdict::{ComparedCall, Comparison, Difference, DifferenceKind, EarlierPairing, UnparsableBody, Verdict};
