//! Tests of the order of steps, and of cycles.

use super::*;

#[test]
fn cycles_are_named_step_by_step() {
    assert_step_problems(
        "a: { set: '${steps.c.output}' }\nb: { needs: [a], set: 1 }\nc: { set: '${steps.b.skipped}' }\nd: { set: '${steps.a.output}' }",
        &["w.steps.a: steps wait for each other: a → c → b → a (a → b: a reads the output of b, or needs it)"],
    );
    assert_step_problems(
        "a: { needs: [a], set: 1 }",
        &["w.steps.a: steps wait for each other: a → a (a → b: a reads the output of b, or needs it)"],
    );
    let two =
        "a: { needs: [b, d], set: 1 }\nb: { needs: [c], set: 1 }\nc: { needs: [b], set: 1 }\nd: { needs: [a], set: 1 }";
    let (_, problems) = Environment::new().check(&steps(two));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("b → c → b") && problems[1].contains("a → d → a"), "{problems:?}");
}

/// Writes a graph as steps. An edge `(from, to, by_hand)` makes `from` need `to`: by `needs:` or by an expression.
fn graph(size: usize, edges: &[(usize, usize, bool)]) -> String {
    let mut text = String::from("workflow: w\nsteps:\n");
    for step in 0..size {
        let of = |by_hand: bool| edges.iter().filter(move |(from, _, hand)| *from == step && *hand == by_hand);
        let needs: Vec<_> = of(true).map(|(_, to, _)| format!("s{to}")).collect();
        let reads: Vec<_> = of(false).map(|(_, to, _)| format!("'${{steps.s{to}.output}}'")).collect();
        text.push_str(&format!("  s{step}: {{ needs: [{}], set: [{}] }}\n", needs.join(", "), reads.join(", ")));
    }
    text.push_str("respond: { status: 200 }\n");
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_dag_is_ordered(size in 1usize..25, edges in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..60), shuffle in any::<u64>()) {
        // Edges lead from a higher rank to a lower one, and ranks are a shuffle of the file's order.
        let mut rank: Vec<usize> = (0..size).collect();
        let mut random = fastrand::Rng::with_seed(shuffle);
        random.shuffle(&mut rank);
        let edges: Vec<_> = edges.into_iter().filter_map(|(a, b, hand)| {
            let (a, b) = (a as usize % size, b as usize % size);
            (rank[a] != rank[b]).then(|| if rank[a] > rank[b] { (a, b, hand) } else { (b, a, hand) })
        }).collect();
        let plan = checked_plan(&graph(size, &edges));
        prop_assert_eq!(plan.steps.len(), size);
        let index = |step: usize| plan.step(&StepId::new(format!("s{step}"))).unwrap().0;
        for (from, to, _) in edges {
            prop_assert!(index(from) > index(to));
            prop_assert!(plan.steps[index(from).0].needs.contains(&index(to)));
            prop_assert!(plan.dependents[index(to).0].contains(&index(from)));
        }
        prop_assert!(plan.steps.iter().enumerate().all(|(at, step)| step.needs.iter().all(|need| need.0 < at)));
    }

    #[test]
    fn a_cycle_is_always_found(size in 1usize..20, from in any::<u32>(), length in 1usize..20, edges in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..20)) {
        let length = length.min(size);
        let from = from as usize % size;
        let mut all: Vec<_> = edges.into_iter().map(|(a, b, hand)| (a as usize % size, b as usize % size, hand)).collect();
        all.extend((0..length).map(|step| ((from + step) % size, (from + (step + 1) % length) % size, true)));
        let (plan, problems) = Environment::new().check(&graph(size, &all));
        prop_assert!(plan.is_none());
        prop_assert!(!problems.is_empty());
        for problem in problems {
            // The steps that the problem names form a cycle: each needs the next, and the last is the first.
            let names = problem.split("each other: ").nth(1).unwrap().split(" (").next().unwrap();
            let steps: Vec<usize> = names.split(" → ").map(|name| name[1..].parse().unwrap()).collect();
            prop_assert_eq!(steps.first(), steps.last());
            prop_assert!(steps.windows(2).all(|pair| all.iter().any(|(a, b, _)| (*a, *b) == (pair[0], pair[1]))));
        }
    }
}
