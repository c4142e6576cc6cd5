//! Binds a request to the arm that took its first try, or records it as legacy's.
//!
//! The decision for a new request is made before this. The store knows first tries that this process does not remember,
//! and is asked only where its answer can change which arm answers. Always true: legacy is called for a keyed request
//! only after the request was recorded as legacy's, and never while the engine may have the same request; if the first
//! try stays unknown, no arm is called unless neither could do the work twice.

use http::request;

use super::failure::Failure;
use super::proxied_request::{ProxiedRequest, declared_length};
use super::respond::Refused;
use super::retry_keys::{self, KnownFirstTry};
use super::upload::Upload;
use super::wait::Phase;
use crate::exchange::{KnownBody, LegacyTake, ProblemDocument, RequestDigests};
use crate::flag::{Arm, Decision, EngineReason, EngineWork, RequestFacts, RouteFlag, SkipReason, State, could_be_live};

/// A request of a route with a workflow, of which no arm has begun anything.
pub(super) struct KeyedRequest<'a> {
    pub proxied: &'a ProxiedRequest<'a>,
    pub flag: &'a RouteFlag,
    pub head: &'a request::Parts,
    pub facts: &'a RequestFacts<'a>,
    /// The decision for a new request with the same facts.
    pub decision_if_new: Decision,
}

/// The decision on a request, after its retry keys were taken into account.
pub(super) struct BoundDecision {
    pub decision: Decision,
    /// Whether the request's keys could not be noted for legacy although the engine could perform its retry.
    pub key_not_noted: bool,
}

impl KeyedRequest<'_> {
    /// Binds the request to an arm. Updates `first_try` with what was found out; if `first_try` stays unknown, the
    /// caller refuses the request.
    ///
    /// # Errors
    /// The engine has the same request under another credential or other files, each arm has a request with one of its
    /// keys, or the body could not be read in time.
    pub(super) async fn bind(
        &self,
        first_try: &mut KnownFirstTry,
        upload: &mut Upload,
    ) -> Result<BoundDecision, Box<Refused>> {
        let (proxied, flag) = (self.proxied, self.flag);
        let affinity = &*proxied.client.shared.affinity;
        // Some first tries are known only to the store. It is asked only if its answer can change this decision: a
        // decision for the engine changes if legacy took the first try, a decision for legacy if the engine of another
        // process did.
        match (first_try.arm, &self.decision_if_new) {
            (None, Decision::Engine { .. }) | (Some(Arm::Engine), _) => {
                first_try.ask_store_about_legacy(affinity).await
            }
            (None, Decision::Legacy { .. }) => first_try.ask_store_about_other_engines(affinity).await,
            (None, Decision::Nobody { .. }) | (Some(Arm::Legacy), _) => {}
        }
        let is_pinned = matches!(self.decision_if_new, Decision::Engine { reason: EngineReason::Pin, .. });
        if first_try.is_contradictory && !is_pinned {
            return Err(self.refused_as_taken(self.decision_if_new.rung(), ProblemDocument::taken_by_both_arms()));
        }
        // The engine may have a request with this key under another credential. Only the body shows whether that is the
        // same request.
        let mut body = KnownBody::Unread;
        if let (Decision::Legacy { rung, .. }, false) = (self.decision(first_try), first_try.is_unknown)
            && first_try.engine_may_have_another_credential(affinity)
        {
            body = self.check_not_taken(rung, upload, first_try).await?;
        }
        let is_answered_anyway = self.is_answered_anyway(first_try);
        first_try.is_served_while_unknown = first_try.is_unknown && is_answered_anyway;
        first_try.is_unknown = first_try.is_unknown && !is_answered_anyway;
        // If legacy took the first try under another credential, its dark run has sent the private effects, and there
        // is no second dark run. This process knows only first tries since its start; the store is asked for others
        // after the reply.
        let mut had_dark_run = first_try.legacy_took_under_another_credential(affinity);
        let mut key_not_noted = false;
        let mut taken_by_engine = None;
        // From here on the request is legacy's, unless the engine took it first: another request with the same key may
        // be in flight under another flag set. The loop repeats only after the body was read.
        while let (false, Decision::Legacy { rung, .. }) = (first_try.is_unknown, self.decision(first_try)) {
            let earlier = first_try.earlier_keys(proxied.table.set.files_version, is_answered_anyway);
            let (id, keys) = (&flag.route.id, first_try.keys);
            match retry_keys::take_for_legacy(affinity, id, keys, &earlier, body).await {
                LegacyTake::Taken { noted, is_retry } => {
                    // Legacy took another try with the same key since the look-up above; that try has the dark run.
                    had_dark_run |= is_retry;
                    key_not_noted = !self.is_noted(first_try, rung, noted, is_retry).await;
                }
                LegacyTake::HeldByEngine => taken_by_engine = Some(Arm::Engine),
                LegacyTake::HeldUnderAnotherCredential => {
                    return Err(self.refused_as_taken(rung, ProblemDocument::taken_under_another_credential()));
                }
                LegacyTake::HeldUnderNewerFiles => {
                    return Err(self.refused_as_taken(rung, ProblemDocument::taken_under_other_files()));
                }
                LegacyTake::Unknown => first_try.is_unknown = true,
                // Since the look-up above, the engine took a request with this key, perhaps under another credential.
                LegacyTake::NeedsBody => {
                    body = self.check_not_taken(rung, upload, first_try).await?;
                    continue;
                }
            }
            break;
        }
        let mut decision = self.decision_if_new.for_retry(flag, taken_by_engine.or(first_try.arm));
        // A run that only reads may be repeated.
        if let Decision::Legacy { engine_work: work @ EngineWork::Dark, .. } = &mut decision
            && had_dark_run
            && flag.route.keeps_runs
        {
            *work = EngineWork::Skip(SkipReason::Retried);
        }
        Ok(BoundDecision { decision, key_not_noted })
    }

    /// Returns the decision with what is now known of the first try.
    fn decision(&self, first_try: &KnownFirstTry) -> Decision {
        self.decision_if_new.for_retry(self.flag, first_try.arm)
    }

    /// Whether the request is answered although it is not known which arm took the first try. There are two such cases:
    /// - The engine answers by its rung, and its workflow only reads.
    /// - Only the engine of another process may have taken the first try, and no such engine is known to have
    ///   answered the route since its keys were read; the route is at most in `shadow`, where legacy answers even
    ///   while the store does not; and the caller is in no cohort that is or may return in `live`. (While a route's
    ///   flip down is not in the store yet, a restart returns the route to `live`; and in another process the route
    ///   may still be in `live`, so that its engine may have taken the first try.)
    fn is_answered_anyway(&self, first_try: &KnownFirstTry) -> bool {
        let (flag, decision) = (self.flag, self.decision(first_try));
        let is_by_rung = matches!(decision, Decision::Engine { reason, .. } if reason.is_by_rung());
        let only_reads = is_by_rung && !flag.route.keeps_runs;
        let at_most_shadow = flag.is_granted_at_most(State::Shadow) && !could_be_live(flag, self.facts);
        only_reads || (at_most_shadow && !first_try.engine_may_have_it_while_unknown())
    }

    /// Whether the keys of a request that legacy took are noted, or need not be because the engine performs no retry of
    /// it.
    async fn is_noted(&self, first_try: &KnownFirstTry, rung: State, noted: bool, is_retry: bool) -> bool {
        let (shared, flag) = (&self.proxied.client.shared, self.flag);
        let Some(keys) = first_try.keys.as_ref().filter(|_| !noted) else { return true };
        // If the caller may be in `live` again without a gate, the engine would perform the retry.
        if rung >= State::Live || could_be_live(flag, self.facts) {
            return is_retry && shared.affinity.noted_earlier(keys).await;
        }
        if is_retry {
            // A task records the request as served unnoted, unless an earlier try was noted.
            retry_keys::record_unless_noted_earlier(shared, &flag.route, *keys);
        } else {
            shared.affinity.record_served_unnoted(keys, &flag.route.id, flag.route.first_id()).await;
        }
        true
    }

    /// Reads the body and checks that the engine does not have the same request under another credential. Updates
    /// `first_try`: an arm may have taken it meanwhile, or the store may not answer.
    ///
    /// # Errors
    /// The engine has the same request (or, if the body is too large to compare, any with its keys), or the body could
    /// not be read in time.
    async fn check_not_taken(
        &self,
        rung: State,
        upload: &mut Upload,
        first_try: &mut KnownFirstTry,
    ) -> Result<KnownBody, Box<Refused>> {
        let Self { proxied, head, facts, .. } = self;
        let client = proxied.client;
        let (shared, wait) = (&client.shared, &client.wait);
        let bytes_max = usize::try_from(shared.limits.body_engine_bytes_max).unwrap_or(usize::MAX);
        wait.enter(Phase::Upload);
        if let Err(overdue) = wait.or_overdue(upload.read_ahead(bytes_max, declared_length(&head.headers))).await {
            return Err(self.refused(rung, Failure::Overdue(overdue)));
        }
        // Reading the body may have taken long.
        first_try.look_up_again(&*shared.affinity).await;
        let body = upload.whole().map_err(|()| self.refused(rung, Failure::Body))?;
        let digests = body.map(|body| RequestDigests::of(&head.method, facts.path, head.uri.query(), body));
        let taken = match &digests {
            Some(digests) => retry_keys::engine_took(&*shared.affinity, first_try, digests).await,
            // Under the limits of an earlier process, the engine may have taken larger bodies.
            None => retry_keys::engine_took_any(&*shared.affinity, &first_try.any_caller).await,
        };
        match taken {
            Ok(false) => {}
            Ok(true) => {
                return Err(self.refused_as_taken(rung, ProblemDocument::taken_under_another_credential()));
            }
            Err(_) => {
                first_try.is_unknown = true;
                first_try.this_engine_may_have_it |=
                    retry_keys::this_engine_may_have_taken(&*shared.affinity, &first_try.any_caller);
            }
        }
        Ok(digests.map_or(KnownBody::TooLarge, |digests| KnownBody::Digest(digests.present)))
    }

    fn refused_as_taken(&self, rung: State, problem: ProblemDocument) -> Box<Refused> {
        retry_keys::count_taken(&self.flag.route.id);
        self.refused(rung, Failure::Engine(problem))
    }

    fn refused(&self, rung: State, failure: Failure) -> Box<Refused> {
        Box::new(self.proxied.refused(rung, failure))
    }
}
