//! `store check` and `store backup`.

use serde_json::json;

use super::args::{StoreOf, Stores};
use super::paint::{Paint, Tone, harmless};
use super::{Done, Doors, Failure, StoreFinding, StorePlace, StoreReport};

pub(super) fn run(command: Stores, doors: &Doors, paint: Paint) -> Result<Done, Failure> {
    match command {
        Stores::Check { of } => Ok(checked(&(doors.store_check)(place(of))?, paint)),
        Stores::Backup { file, of } => {
            let copy = (doors.store_backup)(place(of), file.clone())?;
            let done = checked(&copy.report, paint);
            let name = file.display();
            let text = format!("{} {name}, {} bytes\n{}", paint.tone("written:", Tone::Good), copy.bytes, done.text);
            let json = json!({ "file": file, "bytes": copy.bytes, "check": done.json });
            Ok(Done { text, json, fine: done.fine })
        }
    }
}

fn place(of: StoreOf) -> StorePlace {
    match of.store {
        Some(url) => StorePlace::Url(url),
        None => StorePlace::Flags(of.dir),
    }
}

pub(super) fn checked(report: &StoreReport, paint: Paint) -> Done {
    let StoreReport { place, runs, purged, events, payloads, findings, unlisted } = report;
    let mut text = String::new();
    for StoreFinding { run, what, todo } in findings {
        let about = run.as_deref().unwrap_or("store");
        text += &format!("{} {}\n", paint.tone(format!("{about}:"), Tone::Bad), harmless(what));
        text += &format!("  {} {}\n", paint.tone("what to do:", Tone::Strong), harmless(todo));
    }
    if *unlisted > 0 {
        text += &format!("and {unlisted} more\n");
    }
    let count = findings.len() as u64 + unlisted;
    let verdict = match count {
        0 => paint.tone("sound", Tone::Good),
        1 => paint.tone("1 finding", Tone::Bad),
        count => paint.tone(format!("{count} findings"), Tone::Bad),
    };
    let kept = match purged {
        0 => String::new(),
        purged => format!(" ({purged} of them purged but for their summaries)"),
    };
    text += &format!("{place}: {verdict}; {runs} runs{kept}, {events} events, {payloads} payloads\n");
    let listed =
        findings.iter().map(|StoreFinding { run, what, todo }| json!({ "run": run, "what": what, "todo": todo }));
    let json = json!({
        "store": place,
        "fine": count == 0,
        "runs": runs,
        "purged": purged,
        "events": events,
        "payloads": payloads,
        "findings": listed.collect::<Vec<_>>(),
        "unlisted": unlisted,
    });
    Done { text, json, fine: count == 0 }
}
