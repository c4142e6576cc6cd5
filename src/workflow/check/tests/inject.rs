use super::*;

fn with(inject: &str) -> String {
    format!("workflow: w\ninject: {inject}\nsteps:\n  a: {{ set: 1 }}\nrespond: {{ status: 200 }}\n")
}

#[test]
fn injected_values_come_from_legacys_reply() {
    let plan = checked_plan(&with(
        "{ now: '${legacy.headers.date}', uuid: { order: '${legacy.body.id}' }, random: { lot: '${legacy.body.lot}' } }",
    ));
    let inject = plan.inject.as_ref().unwrap();
    assert!(inject.now.is_some() && inject.uuids.contains_key("order") && inject.randoms.contains_key("lot"));
    assert!(plan.reads.iter().any(|path| path.to_string() == "legacy.body.id"), "the run keeps what it reads");
    assert!(checked_plan(&with("{}")).inject.is_some());
}

#[test]
fn other_reads_are_refused() {
    for (inject, problem) in [
        ("{ now: '${run.started}' }", "w.inject.now: `inject` reads `request` and `legacy`, not `run`"),
        ("{ uuid: { a: '${steps.a.output}' } }", "w.inject.uuid.a: `inject` reads `request` and `legacy`, not `steps`"),
        (
            "{ random: { a: '${request.body.a}' } }",
            "w.inject.random.a: the injected value reads nothing of legacy's reply",
        ),
        ("{ now: '2026-11-26T10:00:00Z' }", "w.inject.now: the injected value reads nothing of legacy's reply"),
        ("{ time: '${legacy.body.at}' }", "time"),
    ] {
        let (plan, problems) = Environment::new().check(&with(inject));
        assert!(plan.is_none() && problems.iter().any(|found| found.contains(problem)), "{inject}: {problems:?}");
    }
}
