//! The edition of a set of files: equal for sets that mean the same to every process that shares a store.

use serde_json::Value;

use super::files::FileKind;
use super::tree::ParsedFile;

/// Settings of `pointsman.yaml` that may differ between processes that share a store: where each listens and keeps its
/// own files, how it reaches the store, and where it sends its log and spans.
const KEYS_OF_ONE_PROCESS: [&str; 9] =
    ["listen", "admin", "api", "store", "store_direct", "store_password", "retry_keys_dir", "access_log", "traces"];
/// The same for settings of its section `egress`.
const EGRESS_KEYS_OF_ONE_PROCESS: [&str; 1] = ["listen"];
/// How many hexadecimal digits of the hash are used: enough to tell editions apart, and short enough to be read.
const DIGITS: usize = 12;

/// The contents, by the name that the flag files give, of files that say what requests mean: the public keys with which
/// callers are verified. Not certificates and keys of connections, of which each process may have its own, nor secrets.
pub(super) type NamedFiles = std::collections::BTreeMap<String, String>;

/// The edition of these files. Comments, the layout of the text, and the names of flag files make no difference.
pub(super) fn edition(sources: &[(FileKind, ParsedFile)], named: &NamedFiles) -> String {
    let mut files: Vec<(FileKind, String)> = sources.iter().map(|(kind, file)| (*kind, content(*kind, file))).collect();
    files.sort();
    let mut hasher = blake3::Hasher::new_derive_key("pointsman 2026 edition of flag files");
    for (kind, content) in &files {
        hasher.update(&[*kind as u8]).update(&(content.len() as u64).to_le_bytes()).update(content.as_bytes());
    }
    for text in named.iter().flat_map(|(name, content)| [name, content]) {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..DIGITS].to_owned()
}

/// What a file says, as JSON with sorted keys.
fn content(kind: FileKind, file: &ParsedFile) -> String {
    let mut value = file.root.as_ref().map_or(Value::Null, super::tree::Node::to_value);
    if let (FileKind::Pointsman, Value::Object(settings)) = (kind, &mut value) {
        settings.retain(|key, _| !KEYS_OF_ONE_PROCESS.contains(&key.as_str()));
        if let Some(egress) = settings.get_mut("egress").and_then(Value::as_object_mut) {
            egress.retain(|key, _| !EGRESS_KEYS_OF_ONE_PROCESS.contains(&key.as_str()));
        }
    }
    value.sort_all_objects();
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn edition_of(files: &[(FileKind, &str)]) -> String {
        let parsed = files.iter().enumerate().map(|(at, (kind, text))| {
            let (file, errors) = parse(&format!("file-{at}.yaml").into(), text);
            assert!(errors.is_empty(), "{text}");
            (*kind, file)
        });
        edition(&parsed.collect::<Vec<_>>(), &NamedFiles::new())
    }

    /// Two processes may have different files under the name that the flag files give.
    #[test]
    fn the_content_of_a_named_file_belongs_to_the_edition() {
        let of = |content: &str| edition(&[], &[("keys.json".to_owned(), content.to_owned())].into());
        assert_eq!(of("one"), of("one"));
        assert_ne!(of("one"), of("two"));
        assert_ne!(of("one"), edition(&[], &NamedFiles::new()));
    }

    const MAIN: &str = "listen: 127.0.0.1:1\nservices: { shop: { url: 'http://a' } }\ndefault_legacy: shop\n";
    const ROUTE: &str = "routes: [{ id: a, match: { path: /a } }]";

    #[test]
    fn settings_of_one_process_do_not_change_the_edition() {
        let first = edition_of(&[(FileKind::Pointsman, MAIN), (FileKind::Routes, ROUTE)]);
        assert_eq!(first.len(), DIGITS);
        let elsewhere = MAIN.replace("127.0.0.1:1", "10.0.0.1:2") + "admin: { listen: 10.0.0.1:3 }\nstore: memory\n";
        let commented = format!("# a comment\n{ROUTE}");
        assert_eq!(edition_of(&[(FileKind::Routes, &commented), (FileKind::Pointsman, &elsewhere)]), first);
        let reordered = "default_legacy: shop\nservices: { shop: { url: 'http://a' } }\n";
        assert_eq!(edition_of(&[(FileKind::Pointsman, reordered), (FileKind::Routes, ROUTE)]), first);
    }

    #[test]
    fn every_other_change_changes_the_edition() {
        let first = edition_of(&[(FileKind::Pointsman, MAIN), (FileKind::Routes, ROUTE)]);
        let main = MAIN.replace("http://a", "http://b");
        assert_ne!(edition_of(&[(FileKind::Pointsman, &main), (FileKind::Routes, ROUTE)]), first);
        let egress = |settings: &str| {
            let main = format!("{MAIN}egress: {{ {settings} }}\n");
            edition_of(&[(FileKind::Pointsman, &main), (FileKind::Routes, ROUTE)])
        };
        assert_eq!(egress("listen: 127.0.0.1:1"), egress("listen: 127.0.0.1:2"));
        assert_ne!(egress("listen: 127.0.0.1:1"), egress("listen: 127.0.0.1:1, window: 3s"));
        let route = ROUTE.replace("/a", "/b");
        assert_ne!(edition_of(&[(FileKind::Pointsman, MAIN), (FileKind::Routes, &route)]), first);
        assert_ne!(edition_of(&[(FileKind::Pointsman, MAIN)]), first);
        assert_ne!(edition_of(&[(FileKind::Pointsman, MAIN), (FileKind::Workflow, ROUTE)]), first);
    }
}
