//! Tests of what happens to evidence when its basis changes.

use serde_json::json;

use super::*;
use crate::evidence::part_names::{
    COMPARED_SIZES, LANGUAGE_VERSION, LEGACY_ADDRESS, MATCH, OTHER_VERSIONS, PLAN_IN_FORCE, READ_PARAMETERS,
    REPLAY_READS, RULES, service_part, workflow_part,
};
use crate::evidence::rule_changes::EARLIER_MAX;
use crate::evidence::{GuardStop, RepliesOfLegacy, WantedPairs};

fn basis(workflow: &str, rules: &str) -> EvidenceBasis {
    let parts = [("the workflow `w`", workflow), (RULES, rules)].map(|(name, hash)| (name.into(), hash.into()));
    EvidenceBasis { hash: format!("{workflow} {rules}"), parts: parts.into(), ..EvidenceBasis::default() }
}

/// Counters with these pairs, of which so many differ, under this basis.
fn counted(counters: &mut Counters, basis: &EvidenceBasis, pairs: u64, mismatched: u64) -> bool {
    let change = counters.set_basis(1, basis, Timestamp::UNIX_EPOCH);
    counters.evidence.shadow_pairs += pairs;
    counters.evidence.mismatched += mismatched;
    change.is_some_and(|change| change.next == NextEvidence::Earlier)
}

#[test]
fn the_evidence_goes_on_with_its_differences_if_a_change_is_taken_back() {
    let mut counters = Counters::default();
    let sums = |counters: &Counters| (counters.evidence.pairs(), counters.evidence.mismatched);
    assert!(!counted(&mut counters, &basis("1", "a"), 10, 1));
    assert!(!counted(&mut counters, &basis("1", "b"), 5, 0));
    let generation = counters.generation;
    assert!(counted(&mut counters, &basis("1", "a"), 2, 0));
    assert_eq!((sums(&counters), counters.generation), ((12, 1), generation + 1));
    assert!(counted(&mut counters, &basis("1", "b"), 0, 0));
    assert_eq!(sums(&counters), (5, 0));
    assert_eq!(counters.evidence.earlier.len(), 1, "that of the basis in force is not listed");
    for other in 0..KEPT_MAX {
        assert!(!counted(&mut counters, &basis("2", &other.to_string()), 1, 0));
    }
    assert!(!counted(&mut counters, &basis("1", "a"), 0, 0), "it was dropped: the oldest");
}

#[test]
fn any_change_but_one_of_the_rules_starts_another_generation_of_the_engine() {
    let mut counters = Counters::default();
    let mut numbers = |workflow: &str, rules: &str| {
        counted(&mut counters, &basis(workflow, rules), 10, 1);
        (counters.generation, counters.engine_generation)
    };
    assert_eq!(numbers("1", "a"), (0, 0));
    assert_eq!(numbers("1", "b"), (1, 0));
    assert_eq!(numbers("2", "b"), (2, 1));
    assert_eq!(numbers("2", "b"), (2, 1));
    assert_eq!(numbers("3", "c"), (3, 2));
}

#[test]
fn a_change_of_the_rules_after_a_difference_counts_also_together_with_another_change() {
    let mut counters = Counters::default();
    let mut changes = |basis: &EvidenceBasis, mismatched| {
        counted(&mut counters, basis, 10, mismatched);
        counters.evidence.rule_changes_after_differences()
    };
    assert_eq!(changes(&basis("1", "a"), 1), 0);
    assert_eq!(changes(&basis("1", "b"), 1), 1);
    assert_eq!(changes(&basis("2", "c"), 0), 2, "together with the workflow");
    assert_eq!(changes(&basis("3", "c"), 0), 2, "nothing differed: the workflow was not mended");
    assert_eq!(changes(&basis("3", "d"), 1), 3, "the difference before was not outweighed");
    assert_eq!(changes(&basis("4", "d"), 0), 0, "the workflow was changed after a difference");
}

/// Another workflow and some equal pairs come between a difference and each change of the rules.
#[test]
fn a_change_of_the_rules_counts_until_the_difference_before_it_is_outweighed() {
    for pairs_between in [0, 1, 19] {
        let ignored = |n: usize| json!({ "ignore": (0..n).map(|n| format!("$.{n}")).collect::<Vec<_>>() }).to_string();
        // Ignored parts are added, or replaced by another one.
        for rules in [&ignored as &dyn Fn(usize) -> String, &|n| json!({ "ignore": [format!("$.{n}")] }).to_string()] {
            let mut counters = Counters::default();
            let wanted = WantedPairs { pairs: 20, mismatch_below: 0.2 };
            let basis = |workflow: usize, n: usize| EvidenceBasis {
                rules: rules(n),
                wanted,
                ..basis(&workflow.to_string(), &rules(n))
            };
            for n in 0..3 {
                counted(&mut counters, &basis(n, n), 1, 1);
                counted(&mut counters, &basis(n + 1, n), pairs_between, 0);
                counted(&mut counters, &basis(n + 1, n + 1), 0, 0);
                let counted = counters.evidence.rule_changes_after_differences() as usize;
                assert_eq!(counted, n + 1, "{pairs_between} {} {:#?}", rules(n), counters.evidence.earlier);
            }
            // Needs more pairs than 20 by now.
            counted(&mut counters, &basis(4, 3), 25, 0);
            counted(&mut counters, &basis(4, 4), 100, 0);
            assert_eq!(counters.evidence.rule_changes_after_differences(), 4);
            counted(&mut counters, &basis(5, 4), 0, 0);
            counted(&mut counters, &basis(5, 5), 0, 0);
            assert_eq!(counters.evidence.rule_changes_after_differences(), 0, "it was outweighed by 100 pairs");
        }
    }
}

#[test]
fn many_changes_of_the_workflow_do_not_make_a_difference_forgotten() {
    let mut counters = Counters::default();
    counted(&mut counters, &basis("0", "a"), 1, 1);
    for n in 1..=EARLIER_MAX + 2 {
        counted(&mut counters, &basis(&n.to_string(), "a"), 1, 0);
    }
    counted(&mut counters, &basis("1", "b"), 1, 0);
    assert_eq!(counters.evidence.rule_changes_after_differences(), 1);
    assert_eq!(counters.evidence.earlier.len(), EARLIER_MAX);
}

/// Each change but the first is one of the rules after which a pair was equal.
#[test]
fn many_changes_of_the_rules_do_not_make_a_difference_forgotten() {
    let mut counters = Counters::default();
    counted(&mut counters, &basis("1", "0"), 1, 1);
    for n in 1..EARLIER_MAX * 2 {
        counted(&mut counters, &basis("1", &n.to_string()), 1, 0);
        assert_eq!(counters.evidence.rule_changes_after_differences() as usize, n);
    }
    assert_eq!((counters.evidence.earlier.len(), counters.evidence.dropped.mismatched), (EARLIER_MAX, 1));
}

/// For one save of the rules the gates ask for little, and then for as much as before.
#[test]
fn what_outweighs_a_difference_is_judged_by_what_the_gates_ask_for_now() {
    let mut counters = Counters::default();
    let of = |rules: &str, wanted: WantedPairs| EvidenceBasis { wanted, ..basis("1", rules) };
    let (much, little) =
        (WantedPairs { pairs: 20, mismatch_below: 0.2 }, WantedPairs { pairs: 1, mismatch_below: 0.99 });
    counted(&mut counters, &of("a", much), 3, 3);
    counted(&mut counters, &of("b", much), 6, 0);
    counted(&mut counters, &of("c", little), 1, 0);
    assert!(counters.evidence.earlier.last().is_some_and(|last| last.outweighed), "a few equal pairs are enough");
    counted(&mut counters, &of("c", much), 1, 0);
    assert!(!counters.evidence.earlier.last().is_some_and(|last| last.outweighed));
    assert_eq!(counters.evidence.rule_changes_after_differences(), 2);
}

#[test]
fn changes_without_a_pair_between_them_count_as_one() {
    for skips in [0, 3] {
        let mut counters = Counters::default();
        counted(&mut counters, &basis("1", "a"), 8, 8);
        counted(&mut counters, &basis("2", "a"), 0, 0);
        if skips > 0 {
            counters.evidence.skipped.insert("queue_full".into(), skips);
        }
        counted(&mut counters, &basis("2", "b"), 3, 0);
        assert_eq!(counters.evidence.rule_changes_after_differences(), 1, "the rules were changed too");
        let restart = counters.evidence.restarted.clone().expect("it was started from zero");
        assert_eq!((restart.changed.len(), restart.pairs_before), (2, 8), "{:?}", restart.changed);
        assert_eq!(counters.evidence.earlier.len(), 1);
    }
}

/// A basis with this address of legacy, this workflow and these rules.
fn with_legacy(address: &str, workflow: &str, rules: &str) -> EvidenceBasis {
    let parts = [(LEGACY_ADDRESS, address), ("the workflow `w`", workflow), (RULES, rules)];
    let parts = parts.map(|(name, hash)| (name.into(), hash.into()));
    let (hash, own_parts) = (format!("{address} {workflow} {rules}"), [workflow_part("w")].into());
    EvidenceBasis { hash, parts: parts.into(), own_parts, ..EvidenceBasis::default() }
}

/// In `live` at 100 % no reply of legacy comes any more from which its rates could be learned again.
#[test]
fn how_legacy_answers_outlives_every_change_but_those_of_its_address_and_requests() {
    let mut counters = Counters::default();
    let known = RepliesOfLegacy { replies: 120, client_errors: 3, ..RepliesOfLegacy::default() };
    counted(&mut counters, &with_legacy("a", "1", "r"), 60, 0);
    counters.evidence.legacy = known.clone();
    for basis in [with_legacy("a", "2", "r"), with_legacy("a", "2", "s"), with_legacy("a", "3", "t")] {
        counted(&mut counters, &basis, 0, 0);
        assert_eq!((counters.evidence.pairs(), &counters.evidence.legacy), (0, &known), "{basis:?}");
    }
    assert_eq!(counters.evidence.rank(), 0, "it is no evidence of the engine");
    counters.evidence.legacy.replies += 1;
    counted(&mut counters, &with_legacy("a", "1", "r"), 0, 0);
    assert_eq!((counters.evidence.pairs(), counters.evidence.legacy.replies), (60, 121), "the newest figures");
    counted(&mut counters, &with_legacy("b", "1", "r"), 0, 0);
    assert_eq!(counters.evidence.legacy, RepliesOfLegacy::default(), "another legacy answers");
    counted(&mut counters, &with_legacy("a", "1", "r"), 0, 0);
    assert_eq!(counters.evidence.legacy.replies, 121, "the earlier one answers again");
}

#[test]
fn how_legacy_answered_is_not_known_where_the_store_has_no_parts_or_for_another_candidate() {
    let mut counters = Counters { basis: Some("of an earlier version".into()), ..Counters::default() };
    counters.evidence.legacy.replies = 120;
    counted(&mut counters, &with_legacy("a", "1", "r"), 0, 0);
    assert_eq!(counters.evidence.legacy.replies, 0);

    let mut counters = Counters::default();
    let candidate = |workflow: &str, rules: &str| {
        let mut basis = with_legacy("a", workflow, rules);
        basis.parts.hashes.insert(PLAN_IN_FORCE.into(), "p".into());
        basis
    };
    counted(&mut counters, &candidate("1", "r"), 0, 0);
    counters.evidence.legacy.replies = 120;
    counted(&mut counters, &candidate("1", "s"), 0, 0);
    assert_eq!(counters.evidence.legacy.replies, 120, "the rules say nothing of what the plan in force answers");
    let mut sizes = candidate("1", "s");
    sizes.hash += " sizes";
    sizes.parts.hashes.insert(COMPARED_SIZES.into(), "1".into());
    counted(&mut counters, &sizes, 0, 0);
    assert_eq!(counters.evidence.legacy.replies, 120, "nor do these");
    counted(&mut counters, &candidate("2", "s"), 0, 0);
    assert_eq!(counters.evidence.legacy.replies, 0, "another candidate: the plan in force answers");
}

#[test]
fn a_candidate_stays_stopped_until_what_it_answers_may_have_changed() {
    let mut counters = Counters::default();
    let stop = Some(GuardStop { at: Timestamp::UNIX_EPOCH, why: "refused".into() });
    counted(&mut counters, &with_legacy("a", "1", "r"), 60, 0);
    counters.evidence.stopped_by_guard.clone_from(&stop);
    let mut found = |basis: EvidenceBasis| {
        counted(&mut counters, &basis, 1, 0);
        counters.evidence.stopped_by_guard.clone()
    };
    assert_eq!(found(with_legacy("a", "1", "s")), stop, "only the rules were changed");
    assert_eq!(found(with_legacy("b", "1", "s")), stop, "or legacy moved");
    assert_eq!(found(with_legacy("b", "2", "s")), None, "another workflow");
    assert_eq!(found(with_legacy("a", "1", "s")), stop, "the change was taken back");
    for part in [COMPARED_SIZES, REPLAY_READS, LANGUAGE_VERSION, PLAN_IN_FORCE, OTHER_VERSIONS, "`instance:`"] {
        let mut basis = with_legacy("a", "1", "s");
        basis.hash += part;
        basis.parts.hashes.insert(part.into(), "1".into());
        assert_eq!(found(basis), stop, "{part}");
    }
    let mut of_creator = with_legacy("a", "1", "s");
    of_creator.hash += " creator";
    of_creator.parts.hashes.extend([(workflow_part("of.creator"), "1".into()), (service_part("its"), "1".into())]);
    assert_eq!(found(of_creator), stop, "the workflow of its creator");
    let calling = |address: &str| {
        let mut basis = with_legacy("a", "1", "s");
        basis.hash += address;
        basis.parts.hashes.insert(service_part("bank"), address.into());
        basis.own_parts.insert(service_part("bank"));
        basis
    };
    assert_eq!(found(EvidenceBasis { own_parts: [workflow_part("w")].into(), ..calling("1") }), stop);
    assert_eq!(found(calling("2")), None, "a service that failed has another address");
}

/// The names of path parameters are part of the hash of a basis, and of no part unless something reads them.
#[test]
fn the_evidence_goes_on_if_only_names_change_that_nothing_reads() {
    let mut counters = Counters::default();
    let named = |name: &str| EvidenceBasis { hash: format!("{name} 1 a"), ..basis("1", "a") };
    counted(&mut counters, &named("o0"), 8, 3);
    assert_eq!(counters.set_basis(2, &named("o1"), Timestamp::UNIX_EPOCH), None);
    assert_eq!((counters.evidence.pairs(), counters.evidence.mismatched, counters.generation), (8, 3, 0));
    assert_eq!(counters.basis.as_deref(), Some("o1 1 a"));
    // Of evidence of an earlier version it is not known what the parts were.
    counters.parts = BasisParts::default();
    assert!(counters.set_basis(3, &named("o2"), Timestamp::UNIX_EPOCH).is_some());
    assert_eq!(counters.evidence.pairs(), 0);
}

/// Each of them starts the evidence from zero, so that it can be repeated until no pair happens to differ.
#[test]
fn a_change_of_anything_but_a_plan_counts_like_one_of_the_rules() {
    let of = |parts: &[(&str, &str)]| {
        let parts: BTreeMap<String, String> =
            parts.iter().map(|(name, hash)| ((*name).into(), (*hash).into())).collect();
        let parts = BasisParts { hashes: parts, values: BTreeMap::new() };
        EvidenceBasis { hash: format!("{:?}", parts.hashes), parts, ..EvidenceBasis::default() }
    };
    let (service, workflow) = (service_part("bank"), workflow_part("w"));
    let (service, workflow) = (service.as_str(), workflow.as_str());
    let (of_rules, of_plan) = (1, 0);
    for (before, after, counts) in [
        (of(&[(MATCH, "a"), ("w", "1")]), of(&[(MATCH, "b"), ("w", "1")]), of_rules),
        (of(&[("`instance:`", "a")]), of(&[("`instance:`", "b")]), of_rules),
        (of(&[(service, "a")]), of(&[(service, "b")]), of_rules),
        (of(&[(workflow, "a"), (MATCH, "a")]), of(&[(workflow, "b"), (MATCH, "b")]), of_rules),
        (of(&[(workflow, "a")]), of(&[(workflow, "b")]), of_plan),
        // The changed workflow makes another call.
        (of(&[(workflow, "a")]), of(&[(workflow, "b"), (service, "a")]), of_plan),
        (of(&[(workflow, "a")]), of(&[(workflow, "b"), (READ_PARAMETERS, "a")]), of_plan),
        (of(&[(READ_PARAMETERS, "a")]), of(&[(READ_PARAMETERS, "b")]), of_rules),
        (of(&[(LANGUAGE_VERSION, "a")]), of(&[(LANGUAGE_VERSION, "b")]), of_plan),
        (of(&[(PLAN_IN_FORCE, "a")]), of(&[(PLAN_IN_FORCE, "b")]), of_plan),
    ] {
        let mut counters = Counters::default();
        counted(&mut counters, &before, 8, 1);
        counted(&mut counters, &after, 0, 0);
        assert_eq!(counters.evidence.rule_changes_after_differences(), counts, "{before:?} {after:?}");
        assert_eq!(counters.evidence.pairs(), 0);
    }
}
