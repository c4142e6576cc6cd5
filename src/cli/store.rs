//! `store check` and `store backup`.

use serde_json::json;

use super::args::{StoreArgs, StoreCommand};
use super::format::{Formatter, Tone, counted, escape_control};
use super::output::Output;
use super::process_commands::{ProcessCommands, StoreFinding, StoreLocation, StoreReport};

pub(super) fn run(
    command: StoreCommand,
    process_commands: &ProcessCommands,
    format: Formatter,
) -> anyhow::Result<Output> {
    match command {
        StoreCommand::Check { store } => Ok(report(&(process_commands.store_check)(location(store))?, format)),
        StoreCommand::Backup { file, store } => {
            let copy = (process_commands.store_backup)(location(store), file.clone())?;
            let done = report(&copy.report, format);
            let name = file.display();
            let mut text = format!("{} {name}, {} bytes\n", format.tone("written:", Tone::Good), copy.bytes);
            if copy.waiting_keys > 0 {
                text += &format!("{} retry keys that the store did not have yet are in the copy\n", copy.waiting_keys);
            }
            for why in &copy.unread {
                let sentence = format!(
                    "{why}: retry keys in it that the store does not have yet are not in the copy. Put that \
                     right, then back up again to another file\n"
                );
                text += &format.tone(escape_control(&sentence), Tone::Bad);
            }
            text += &done.text;
            let (waiting, unread) = (copy.waiting_keys, &copy.unread);
            let json = json!({
                "file": file, "bytes": copy.bytes, "waiting_keys": waiting, "unread": unread, "check": done.json,
            });
            Ok(Output { text, json, is_ok: done.is_ok && copy.unread.is_empty() })
        }
    }
}

fn location(args: StoreArgs) -> StoreLocation {
    match args.store {
        Some(url) => StoreLocation::Url(url),
        None => StoreLocation::Flags(args.dir),
    }
}

pub(super) fn report(report: &StoreReport, format: Formatter) -> Output {
    let StoreReport { location, runs, purged, events, payloads, findings, unlisted } = report;
    let mut text = String::new();
    for StoreFinding { run, what, todo } in findings {
        let about = run.as_deref().unwrap_or("store");
        text += &format!("{} {}\n", format.tone(format!("{about}:"), Tone::Bad), escape_control(what));
        text += &format!("  {} {}\n", format.tone("what to do:", Tone::Strong), escape_control(todo));
    }
    if *unlisted > 0 {
        text += &format!("and {unlisted} more\n");
    }
    let count = findings.len() as u64 + unlisted;
    let verdict = match count {
        0 => format.tone("no faults", Tone::Good),
        1 => format.tone("1 fault", Tone::Bad),
        count => format.tone(format!("{count} faults"), Tone::Bad),
    };
    let of_them_purged = match purged {
        0 => String::new(),
        purged => format!(" ({purged} of them purged except for their summaries)"),
    };
    let (run_count, event_count) = (counted(*runs, "run"), counted(*events, "event"));
    let payload_count = counted(*payloads, "payload");
    text += &format!("{location}: {verdict}; {run_count}{of_them_purged}, {event_count}, {payload_count}\n");
    let listed =
        findings.iter().map(|StoreFinding { run, what, todo }| json!({ "run": run, "what": what, "todo": todo }));
    let json = json!({
        "store": location,
        "fine": count == 0,
        "runs": runs,
        "purged": purged,
        "events": events,
        "payloads": payloads,
        "findings": listed.collect::<Vec<_>>(),
        "unlisted": unlisted,
    });
    Output { text, json, is_ok: count == 0 }
}
