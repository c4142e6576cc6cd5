//! Mutations of a valid set: no panic, and every finding has a position.

use super::set::{POINTSMAN, ROUTES, Set, WORKFLOW};

const FILES: [(&str, &str); 3] =
    [("pointsman.yaml", POINTSMAN), ("routes/orders.yaml", ROUTES), ("workflows/create-order.yaml", WORKFLOW)];

/// Mutated texts of a file, each with a name.
fn mutants(text: &str) -> Vec<(String, String)> {
    let mut mutants = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let with = |new: &str| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            new.clone_into(&mut lines[n]);
            lines.join("\n") + "\n"
        };
        let Some((key, value)) = line.split_once(':') else { continue };
        let indent = &key[..key.len() - key.trim_start().len()];
        mutants.push((format!("line {n} key misspelt"), with(&format!("{key}x:{value}"))));
        mutants.push((format!("line {n} twice"), with(&format!("{line}\n{}", line.replacen("- ", "  ", 1)))));
        mutants.push((format!("line {n} unknown key"), with(&format!("{line}\n{indent}nobody_reads_this: 1"))));
        for (name, other) in [
            ("number", "7.5"),
            ("bool", "true"),
            ("list", "[a, 1]"),
            ("map", "{ a: b }"),
            ("null", "null"),
            ("text", "nothing-of-this-name"),
            ("bad template", "'${request.'"),
            ("open", "[{"),
            ("tag", "!!binary x"),
            ("alias", "*nobody"),
        ] {
            mutants.push((format!("line {n} is a {name}"), with(&format!("{key}: {other}"))));
        }
        mutants.push((format!("line {n} gone"), with("")));
        mutants.push((format!("line {n} tab"), with(&format!("\t{line}"))));
    }
    for cut in (0..text.len()).step_by(7) {
        mutants.push((format!("cut at {cut}"), text[..cut].to_owned()));
    }
    mutants
}

#[test]
fn every_mutant_is_accepted_or_refused_with_a_position() {
    let set = Set::valid();
    assert!(set.read().is_ok(), "{}", set.shown());
    let (mut tried, mut refused) = (0, 0);
    for (name, good) in FILES {
        let path = set.dir().join(name);
        for (what, text) in mutants(good) {
            tried += 1;
            std::fs::write(&path, &text).expect("written");
            let Err(failed) = set.read() else { continue };
            refused += 1;
            let shown = failed.render(false);
            for finding in &failed.findings.0 {
                let position = finding.position();
                assert!(finding.line.is_some() && finding.column.is_some(), "{name}, {what}: no position: {shown}");
                assert!(shown.contains(&position), "{name}, {what}: {position} is not in: {shown}");
                assert!(!finding.message.contains("this is a bug in pointsman"), "{name}, {what}: {shown}\n{text}");
            }
        }
        std::fs::write(&path, good).expect("written");
    }
    println!("tried {tried}, refused {refused}, panics 0, refusals without a position 0");
    assert!(tried > 200 && refused > tried / 2, "{tried} tried, {refused} refused");
}

mod properties {
    use proptest::prelude::*;

    use super::{POINTSMAN, ROUTES, WORKFLOW};
    use crate::config::Overrides;
    use crate::config::files::{File, FileKind, Files};
    use crate::config::load::check;

    fn files(texts: [String; 3]) -> Files {
        let kinds = [FileKind::Pointsman, FileKind::Routes, FileKind::Workflow];
        let file = |(kind, text)| File { kind, name: format!("{kind:?}.yaml"), text };
        Files { files: kinds.into_iter().zip(texts).map(file).collect(), ..Files::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn a_splice_never_panics_and_every_finding_has_a_position(
            which in 0..3_usize, at in 0.0..1.0_f64, cut in 0..40_usize,
            text in prop_oneof!["[-a-z:{}\\[\\]$ \\n\"'&*!|>]{0,30}", "\\PC{0,12}", Just("${".to_owned())],
        ) {
            let mut texts = [POINTSMAN.to_owned(), ROUTES.to_owned(), WORKFLOW.to_owned()];
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let start = (texts[which].len() as f64 * at) as usize;
            let end = (start + cut).min(texts[which].len());
            texts[which].replace_range(start..end, &text);
            if let Err(failed) = check("flags".as_ref(), files(texts), &Overrides::default()) {
                let shown = failed.render(false);
                prop_assert!(failed.findings.0.iter().all(|finding| finding.line.is_some()), "{}", shown);
                failed.render(true);
            }
        }
    }
}
