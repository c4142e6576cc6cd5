//! What a distributed PostgreSQL would refuse of the schema and the statements, by the list that Citus documents. The
//! lists of tables and of exceptions stand in `src/docs/scale.md` too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pointsman::limits::Limits;
use pointsman::secret::Secret;
use pointsman::store::{PostgresStore, Store};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::support::documented;
use crate::support::postgres_server::{Database, shared};

/// The tables that grow with requests and runs, each with the column by whose hash its rows would be distributed. Rows
/// of tables with the same column are on one node if its value is equal.
const DISTRIBUTED: &[(&str, &str)] = &[
    ("adoptions", "family"),
    ("appends", "run_id"),
    ("births", "run_id"),
    ("legacy_instances", "family"),
    ("locks", "run_id"),
    ("orders", "run_id"),
    ("payload_refs", "run_id"),
    ("payloads", "hash"),
    ("pins", "family"),
    ("retry_keys", "key"),
    ("run_keys", "run_id"),
    ("run_snapshots", "run_id"),
    ("runs", "run_id"),
];
/// The tables that are small, or bounded: a copy would be on each node.
const REFERENCE: &[&str] = &[
    "captures",
    "declared",
    "evidence",
    "flips",
    "meta",
    "notices",
    "pin_collisions",
    "plans",
    "record_entries",
    "sample_runs",
    "samples",
    "service_callers",
    "watched_times",
    "workers",
];
/// The list of the migrations that were executed: on one node.
const LOCAL: &[&str] = &["_sqlx_migrations"];

/// What would be refused today: the table, function or file of statements, and the rule.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("acquire.rs", "row locks"),
    ("adoptions", "primary key"),
    ("births", "primary key"),
    ("births", "sequence"),
    ("births", "unique"),
    ("check.rs", "rows of several nodes"),
    ("check.rs", "subquery over nodes"),
    ("engine_took_any_after()", "rows of several nodes"),
    ("engine_took_any_after()", "subquery over nodes"),
    ("legacy_instances", "primary key"),
    ("locks", "primary key"),
    ("locks", "sequence"),
    ("locks", "unique"),
    ("orders", "primary key"),
    ("orders", "sequence"),
    ("orders", "unique"),
    ("pins", "primary key"),
    ("pins", "sequence"),
    ("pins", "unique"),
    ("purge.rs", "subquery over nodes"),
    ("purge()", "row locks"),
    ("purge()", "rows of several nodes"),
    ("read.rs", "rows of several nodes"),
    ("record_writes.rs", "row locks"),
    ("stored_state.rs", "row locks"),
];

/// Functions that only earlier versions call.
const OF_EARLIER_VERSIONS: &[&str] = &["append_batch", "put_flip", "put_flips", "put_samples", "refuse_older"];

type Findings = BTreeSet<(String, &'static str)>;

fn column_of(table: &str) -> Option<&'static str> {
    DISTRIBUTED.iter().find(|(name, _)| *name == table).map(|(_, column)| *column)
}

/// Reads `text` as JSON rows.
fn rows(database: &Database, text: &str) -> Vec<Value> {
    let found = database.query(&format!("SELECT coalesce(json_agg(of), '[]') FROM ({text}) AS of"));
    serde_json::from_str(&found).expect("JSON")
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

/// The rules for tables.
fn check_tables(database: &Database, findings: &mut Findings) {
    let mut find = |table: &str, rule: &'static str| {
        if column_of(table).is_some() {
            findings.insert((table.to_owned(), rule));
        }
    };
    let unique = "SELECT c.relname AS of_table, i.indisprimary AS is_primary, \
                  array(SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY AS k(number, at) \
                        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number ORDER BY k.at) AS columns \
                  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
                  WHERE c.relnamespace = 'pointsman'::regnamespace AND (i.indisunique OR i.indisexclusion)";
    let mut have_key = BTreeSet::new();
    for row in rows(database, unique) {
        let table = text(&row, "of_table");
        let columns: Vec<&str> = row["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let column = column_of(table).unwrap_or_default();
        if row["is_primary"] == true {
            have_key.insert(table.to_owned());
            if columns.first() != Some(&column) {
                find(table, "primary key");
            }
        }
        if !columns.contains(&column) {
            find(table, "unique");
        }
    }
    DISTRIBUTED
        .iter()
        .filter(|(table, _)| !have_key.contains(*table))
        .for_each(|(table, _)| find(table, "primary key"));
    let columns = "SELECT c.relname AS of_table, a.attname AS name, a.attnotnull AS is_set, \
                   a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid), '') LIKE 'nextval(%' AS is_counted \
                   FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                   LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
                   WHERE c.relnamespace = 'pointsman'::regnamespace AND c.relkind IN ('r', 'p')";
    for row in rows(database, columns) {
        let table = text(&row, "of_table");
        if row["is_counted"] == true {
            find(table, "sequence");
        }
        if column_of(table) == Some(text(&row, "name")) && row["is_set"] == false {
            find(table, "no value");
        }
    }
    for (rule, listed) in [
        (
            "foreign key",
            "SELECT unnest(ARRAY[conrelid::regclass::text, confrelid::regclass::text]) AS of_table \
                         FROM pg_constraint WHERE contype = 'f' AND connamespace = 'pointsman'::regnamespace",
        ),
        ("trigger", "SELECT tgrelid::regclass::text AS of_table FROM pg_trigger WHERE NOT tgisinternal"),
        ("rule", "SELECT tablename AS of_table FROM pg_rules WHERE schemaname = 'pointsman'"),
        ("partition", "SELECT inhrelid::regclass::text AS of_table FROM pg_inherits"),
    ] {
        for row in rows(database, listed) {
            find(text(&row, "of_table").trim_start_matches("pointsman."), rule);
        }
    }
}

/// The statements of the binary, by the file that has them: the literals of the source.
fn statements_of_source() -> BTreeMap<String, Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let of_file = |path: std::path::PathBuf| {
        let source = std::fs::read_to_string(&path).expect("a file");
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        (path.file_name().expect("a name").to_string_lossy().into_owned(), literals(source))
    };
    files.map(of_file).collect()
}

/// The string literals of a source text; those of one `concat!` are one.
fn literals(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    // The depth of parentheses, and the depth at which a `concat!` began with the index of its literal.
    let (mut depth, mut joined) = (0_u32, None::<(u32, usize)>);
    let mut rest = source;
    while let Some(at) = rest.find(['"', '(', ')', '/', '\'']) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        rest = after;
        match source.as_bytes()[source.len() - after.len() - 1] {
            b'(' => {
                depth += 1;
                if before.ends_with("concat!") && joined.is_none() {
                    joined = Some((depth, found.len()));
                    found.push(String::new());
                }
            }
            b')' => {
                if joined.is_some_and(|(began, _)| began == depth) {
                    joined = None;
                }
                depth = depth.saturating_sub(1);
            }
            b'/' if after.starts_with('/') => rest = after.split_once('\n').map_or("", |(_, next)| next),
            // A character, which may be a quote; otherwise a lifetime.
            b'\'' if after.starts_with("\"'") => rest = &after[2..],
            b'"' => {
                let (literal, end) = literal(after);
                rest = &after[end..];
                match joined {
                    Some((_, index)) => found[index].push_str(&literal),
                    None => found.push(literal),
                }
            }
            _ => {}
        }
    }
    found
}

/// The literal that begins here, and where the text goes on.
fn literal(text: &str) -> (String, usize) {
    let mut literal = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (literal, at + 1),
            '\\' => match chars.next() {
                Some((_, '\n')) => while chars.next_if(|(_, next)| next.is_whitespace()).is_some() {},
                Some((_, escaped)) => literal.push(escaped),
                None => {}
            },
            char => literal.push(char),
        }
    }
    (literal, text.len())
}

/// The words of a statement; punctuation is a word of its own.
fn words(statement: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut in_word = false;
    for char in statement.chars() {
        let is_of_word = char.is_alphanumeric() || matches!(char, '_' | '.' | '$');
        match (is_of_word, in_word) {
            (true, true) => words.last_mut().expect("a word").push(char),
            (true, false) => words.push(char.to_string()),
            (false, _) if char.is_whitespace() => {}
            (false, _) => words.push(char.to_string()),
        }
        in_word = is_of_word;
    }
    words
}

fn has(words: &[String], wanted: &[&str]) -> bool {
    words.windows(wanted.len()).any(|part| part.iter().zip(wanted).all(|(word, wanted)| word == wanted))
}

/// The rules for one statement.
fn check_statement(statement: &str, mut find: impl FnMut(&'static str)) {
    let words = words(statement);
    let after = |wanted: &'static str| {
        words.windows(2).filter(move |pair| pair[0] == wanted).map(|pair| pair[1].as_str()).collect::<Vec<_>>()
    };
    let mut used: Vec<&str> = ["FROM", "JOIN", "UPDATE", "INTO", "USING"].into_iter().flat_map(after).collect();
    used.retain(|table| column_of(table).is_some());
    if used.is_empty() {
        return;
    }
    let columns: BTreeSet<&str> = used.iter().filter_map(|table| column_of(table)).collect();
    if columns.len() > 1 {
        find("rows of several nodes");
    }
    let is_one_row = columns.iter().all(|column| {
        let is_column = |word: &str| word == *column || word.ends_with(&format!(".{column}"));
        // A parameter of the statement, or of a function.
        let is_value = |word: &str| word.starts_with('$') || word.starts_with("of");
        words.windows(3).any(|part| is_column(&part[0]) && part[1] == "=" && is_value(&part[2]))
    });
    let functions: BTreeSet<&str> = words
        .windows(4)
        .filter(|part| part[0] == ")" && part[1] == "AS" && part[3] == "(")
        .map(|part| part[2].as_str())
        .collect();
    let locks = has(&words, &["FOR", "UPDATE"]) || has(&words, &["FOR", "SHARE"]);
    if locks && !is_one_row {
        find("row locks");
    }
    for at in 0..words.len() {
        if words[at..].starts_with(&["ON".to_owned(), "CONFLICT".to_owned(), "(".to_owned()]) {
            let inserts = words[..at].windows(2).rev().find(|pair| pair[0] == "INTO").map(|pair| pair[1].as_str());
            let target: Vec<&str> =
                words[at + 3..].iter().take_while(|word| *word != "DO").map(String::as_str).collect();
            let column = inserts.and_then(column_of);
            if column.is_some_and(|column| !target.contains(&column)) {
                find("conflict target");
            }
        }
        // The columns that an update sets.
        if words[at] == "UPDATE" && words.get(at + 1).is_some_and(|table| column_of(table).is_some()) {
            let column = column_of(&words[at + 1]).unwrap_or_default();
            let set = words[at..].iter().take_while(|word| !["FROM", "WHERE", "RETURNING"].contains(&word.as_str()));
            let set: Vec<&str> = set.map(String::as_str).collect();
            let sets_column =
                set.windows(3).any(|part| ["SET", ","].contains(&part[0]) && part[1] == column && part[2] == "=");
            if sets_column {
                find("moves rows");
            }
            if set.iter().any(|word| ["clock_timestamp", "random", "gen_random_uuid", "nextval"].contains(word)) {
                find("volatile");
            }
        }
        // A subquery that depends on the row outside: both sides of its condition are the tables' columns.
        if words[at] == "EXISTS" {
            let inner = subquery(&words[at + 1..]);
            // The rows of a function are where they are asked for.
            let column = |word: &str| {
                let (of, column) = word.split_once('.')?;
                (!functions.contains(of)).then(|| column.to_owned())
            };
            let compares = |part: &[String]| match (part[1] == "=", column(&part[0]), column(&part[2])) {
                (true, Some(one), Some(other)) => Some((one, other)),
                _ => None,
            };
            let is_distributed = inner.windows(2).any(|pair| pair[0] == "FROM" && column_of(&pair[1]).is_some());
            let crosses = inner.windows(3).filter_map(compares).any(|(one, other)| one != other);
            if is_distributed && crosses {
                find("subquery over nodes");
            }
        }
    }
    let is_of_sql = ["RECURSIVE", "TABLESAMPLE", "CUBE", "ROLLUP", "GROUPING", "MERGE"];
    if words.iter().any(|word| is_of_sql.contains(&word.as_str())) {
        find("syntax");
    }
    if has(&words, &["VALUES", "(", "(", "SELECT"]) || has(&words, &["VALUES", "(", "SELECT"]) {
        find("subquery in an insert");
    }
}

/// The words of the parenthesis that begins here.
fn subquery(words: &[String]) -> &[String] {
    let mut depth = 0_i32;
    let end = words.iter().position(|word| {
        depth += i32::from(word == "(") - i32::from(word == ")");
        depth == 0
    });
    &words[..end.unwrap_or(words.len())]
}

fn check_statements(database: &Database, findings: &mut Findings) -> usize {
    let mut count = 0;
    let mut check = |of: &str, statements: &mut dyn Iterator<Item = String>| {
        for statement in statements {
            count += 1;
            check_statement(&statement, |rule| {
                findings.insert((of.to_owned(), rule));
            });
        }
    };
    let functions =
        "SELECT proname AS name, prosrc AS source FROM pg_proc WHERE pronamespace = 'pointsman'::regnamespace";
    for row in rows(database, functions) {
        let name = text(&row, "name");
        if !OF_EARLIER_VERSIONS.contains(&name) {
            check(&format!("{name}()"), &mut text(&row, "source").split(';').map(str::to_owned));
        }
    }
    for (file, statements) in statements_of_source() {
        check(&file, &mut statements.into_iter());
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_distributed_postgresql_would_refuse_is_known_and_documented() {
    let Some(server) = block_in_place(shared) else {
        eprintln!("not tried: PostgreSQL is not installed");
        return;
    };
    let database = block_in_place(|| server.database());
    let store = PostgresStore::open(&Secret::new(database.url()), None, &Limits::default()).await.expect("it opens");
    store.close().await;
    let (findings, tables, statements) = block_in_place(|| {
        let mut findings = Findings::new();
        check_tables(&database, &mut findings);
        let statements = check_statements(&database, &mut findings);
        let listed = "SELECT relname AS name FROM pg_class WHERE relnamespace = 'pointsman'::regnamespace AND relkind IN ('r', 'p')";
        let tables: BTreeSet<String> = rows(&database, listed).iter().map(|row| text(row, "name").to_owned()).collect();
        (findings, tables, statements)
    });
    let known: Vec<&str> =
        DISTRIBUTED.iter().map(|(table, _)| *table).chain(REFERENCE.iter().chain(LOCAL).copied()).collect();
    assert_eq!(tables, known.iter().map(|table| (*table).to_owned()).collect(), "each table is in one of the lists");
    assert_eq!(known.len(), tables.len(), "a table is in two lists");
    let exceptions: Findings = EXCEPTIONS.iter().map(|(of, rule)| ((*of).to_owned(), *rule)).collect();
    let (more, fewer) = (&findings - &exceptions, &exceptions - &findings);
    assert!(more.is_empty(), "would be refused, and is not listed as an exception: {more:#?}");
    assert!(fewer.is_empty(), "is listed as an exception, and would not be refused: {fewer:#?}");

    let rows_of = |rows: Vec<(&str, &str)>| -> BTreeSet<Vec<String>> {
        rows.into_iter().map(|(one, other)| vec![one.to_owned(), other.to_owned()]).collect()
    };
    let shown: BTreeSet<Vec<String>> = documented::table("scale", "| table | distribution column |");
    assert_eq!(shown, rows_of(DISTRIBUTED.to_vec()), "the distributed tables in scale.md");
    let shown: BTreeSet<String> = documented::table("scale", "| reference tables |").into_iter().flatten().collect();
    let shown: BTreeSet<&str> = shown.iter().flat_map(|cell| cell.split(", ")).collect();
    assert_eq!(shown, REFERENCE.iter().copied().collect(), "the reference tables in scale.md");
    let mut shown = Findings::new();
    for row in documented::table("scale", "| what | where |") {
        let rule = EXCEPTIONS.iter().map(|(_, rule)| *rule).find(|rule| *rule == row[0]);
        let rule = rule.unwrap_or_else(|| panic!("scale.md lists `{}`, which is no exception", row[0]));
        shown.extend(row[1].split(", ").map(|of| (of.to_owned(), rule)));
    }
    assert_eq!(shown, exceptions, "the exceptions in scale.md");
    println!("{} tables and {statements} texts, {} exceptions", tables.len(), exceptions.len());
}

#[test]
fn the_rules_find_what_they_are_for() {
    let found = |statement: &str| {
        let mut found = Vec::new();
        check_statement(statement, |rule| found.push(rule));
        found.join(", ")
    };
    for (statement, rules) in [
        ("SELECT * FROM runs WHERE run_id = $1 FOR UPDATE", ""),
        ("SELECT * FROM runs WHERE run_id = ANY ($1) FOR UPDATE", "row locks"),
        ("SELECT * FROM runs JOIN appends ON appends.run_id = runs.run_id", ""),
        ("SELECT * FROM payload_refs r JOIN payloads p ON p.hash = r.hash", "rows of several nodes"),
        ("INSERT INTO runs (run_id) VALUES ($1) ON CONFLICT (run_id) DO NOTHING", ""),
        ("INSERT INTO orders (id) VALUES ($1) ON CONFLICT (id) DO NOTHING", "conflict target"),
        ("INSERT INTO orders (id) VALUES ((SELECT $1))", "subquery in an insert"),
        ("UPDATE runs SET seq = $2, run_id = $1", "moves rows"),
        ("UPDATE runs SET seq = $2 WHERE run_id = $1", ""),
        ("UPDATE runs SET due = clock_timestamp()", "volatile"),
        (
            "SELECT 1 FROM runs WHERE EXISTS (SELECT FROM runs AS up WHERE up.run_id = runs.parent)",
            "subquery over nodes",
        ),
        ("SELECT 1 FROM runs WHERE EXISTS (SELECT FROM appends WHERE appends.run_id = runs.run_id)", ""),
        ("SELECT 1 FROM unnest($1) AS n(run) WHERE NOT EXISTS (SELECT FROM runs WHERE runs.run_id = n.run)", ""),
        ("SELECT r.seq FROM runs r JOIN due ON due.run_id = r.run_id FOR UPDATE OF r SKIP LOCKED", "row locks"),
        ("WITH RECURSIVE x AS (SELECT 1 FROM runs) SELECT 1", "syntax"),
        ("SELECT * FROM meta FOR UPDATE", ""),
    ] {
        assert_eq!(found(statement), rules, "{statement}");
    }
    let source = "let a = concat!(\"SELECT (\", x!(\"y\"), \" 1\\\n   2\"); // \"no\"\nlet b = '\"'; let c = \"d\";";
    assert_eq!(literals(source), ["SELECT (y 12", "d"]);
}
