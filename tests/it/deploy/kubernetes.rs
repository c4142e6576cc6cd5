//! The overlays for Kubernetes: built by kubectl, held against the schemas of Kubernetes and of the Prometheus
//! operator, and their flag files given to the program as the kubelet would do it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{path, program, run, stdout, stop_s_max};
use crate::support::process::{Start, cli, output_text};
use crate::support::{Pointsman, until};

const OVERLAYS: [&str; 2] = ["sqlite", "postgres"];
/// The newest version whose schemas the installed package has.
const KUBERNETES_VERSION: &str = "1.36";

/// The objects of an overlay, as `kubectl apply -k` would send them.
fn objects(overlay: &str) -> Vec<Value> {
    let text = built(overlay);
    let objects: Vec<Value> = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).expect("YAML")).collect();
    assert!(objects.len() >= 6, "{text}");
    objects
}

fn built(overlay: &str) -> String {
    stdout(program("POINTSMAN_KUBECTL").arg("kustomize").arg(path(&format!("kubernetes/overlays/{overlay}"))))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The StatefulSet or the Deployment.
fn workload(objects: &[Value]) -> &Value {
    objects.iter().find(|object| object["spec"]["template"].is_object()).expect("a workload")
}

fn pod(objects: &[Value]) -> &Value {
    &workload(objects)["spec"]["template"]["spec"]
}

/// What the schemas of Kubernetes say to a file; unknown keys are errors.
fn validated(file: &Path) -> (bool, String) {
    run(program("POINTSMAN_KUBERNETES_VALIDATE").args(["--strict", "--no-warn", "-k", KUBERNETES_VERSION]).arg(file))
}

#[test]
fn the_overlays_fit_the_schemas_of_kubernetes() {
    let dir = tempfile::tempdir().expect("a directory");
    for overlay in OVERLAYS {
        let (text, file) = (built(overlay), dir.path().join("objects.yaml"));
        fs::write(&file, &text).expect("written");
        let (is_valid, said) = validated(&file);
        // The ServiceMonitor is not Kubernetes's own.
        assert!(is_valid && said.matches(" passed for resource ").count() == objects(overlay).len() - 1, "{said}");
        fs::write(&file, text.replace("readOnlyRootFilesystem", "readonlyRootFilesystem")).expect("written");
        let (is_valid, said) = validated(&file);
        assert!(!is_valid && said.contains("readonlyRootFilesystem"), "a slip is found: {said}");
    }
}

/// Validates the object on stdin as a ServiceMonitor: the types and forms of values. The operator ignores unknown keys.
const SERVICE_MONITOR: &str = r#"
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import fs from "node:fs";
new ServiceMonitor(JSON.parse(fs.readFileSync(0, "utf8"))).validate();
"#;

#[test]
fn the_service_monitor_fits_the_schema_of_the_operator() {
    let validated = |object: &Value| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("object.json");
        fs::write(&file, object.to_string()).expect("written");
        let packages = std::env::var("POINTSMAN_NODE_PACKAGES");
        let packages = packages.expect("POINTSMAN_NODE_PACKAGES names a directory with what tests/run installs by npm");
        let stdin = fs::File::open(&file).expect("readable");
        let mut node = Command::new("node");
        run(node.current_dir(packages).args(["--input-type=module", "-e", SERVICE_MONITOR]).stdin(stdin))
    };
    let all = objects("sqlite");
    let monitor = find(&all, "ServiceMonitor", "pointsman");
    assert_eq!(validated(monitor), (true, String::new()));
    let mut wrong = monitor.clone();
    wrong["spec"]["endpoints"][0]["interval"] = json!("soon");
    let (is_valid, said) = validated(&wrong);
    assert!(!is_valid && said.contains("interval"), "a slip is found: {said}");
    // It selects the service of the API, under the port's name, and names the job as the alerts do.
    let service = find(&all, "Service", "pointsman-admin");
    assert!(is_within(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]), "{monitor}");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let job = monitor["spec"]["jobLabel"].as_str().expect("a label");
    assert_eq!(service["metadata"]["labels"][job], "pointsman");
}

/// Whether every label of a selector, of which there is one, is among these.
fn is_within(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("labels");
    !selector.is_empty() && selector.iter().all(|(name, value)| labels[name] == *value)
}

#[test]
fn every_selector_selects_the_pods() {
    for overlay in OVERLAYS {
        let all = objects(overlay);
        let workload = workload(&all);
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        let ports: Vec<&Value> =
            pod(&all)["containers"][0]["ports"].as_array().expect("ports").iter().map(|port| &port["name"]).collect();
        let mut selectors = vec![&workload["spec"]["selector"]["matchLabels"]];
        for object in &all {
            match object["kind"].as_str().expect("a kind") {
                "Service" => {
                    selectors.push(&object["spec"]["selector"]);
                    assert!(ports.contains(&&object["spec"]["ports"][0]["targetPort"]), "{object}");
                }
                "PodDisruptionBudget" => selectors.push(&object["spec"]["selector"]["matchLabels"]),
                "NetworkPolicy" => selectors.push(&object["spec"]["podSelector"]["matchLabels"]),
                _ => {}
            }
        }
        assert!(selectors.len() >= 5, "{overlay}: {selectors:?}");
        assert!(selectors.iter().all(|selector| is_within(selector, labels)), "{overlay}: {selectors:?}");
    }
}

#[test]
fn a_pod_gets_more_time_than_its_stop_takes() {
    for overlay in OVERLAYS {
        let all = objects(overlay);
        let pod = pod(&all);
        let container = &pod["containers"][0];
        let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("seconds");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(grace > before + stop_s_max(), "{overlay}: {grace} s, and {before} + {} s are used", stop_s_max());
        // A pod that is not ready any more has left the load balancers before its listeners close.
        let readiness = &container["readinessProbe"];
        let noticed = readiness["periodSeconds"].as_u64().zip(readiness["failureThreshold"].as_u64());
        assert!(noticed.is_some_and(|(period, failures)| period * failures <= before), "{readiness}");
    }
}

#[test]
fn only_processes_on_postgresql_have_replicas() {
    for (overlay, expected) in [("sqlite", 1), ("postgres", 3)] {
        let all = objects(overlay);
        assert_eq!(workload(&all)["spec"]["replicas"], expected, "{overlay}");
    }
}

/// A volume of a ConfigMap as the kubelet makes it: the files are in `..TIME/`, `..data` leads there, and each name at
/// the top leads into `..data`. A change is a new directory and one rename of `..data`; the old directory is removed.
struct ConfigVolume {
    dir: PathBuf,
    versions: usize,
}

impl ConfigVolume {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir(&dir).expect("a directory");
        Self { dir, versions: 0 }
    }

    /// What the kubelet's `AtomicWriter` does, in its order.
    fn publish(&mut self, files: &BTreeMap<String, String>) {
        self.versions += 1;
        let version = format!("..2026_11_29_12_00_{:02}.{}", self.versions, 1_000 + self.versions);
        for (name, text) in files {
            let file = self.dir.join(&version).join(name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            fs::write(&file, text).expect("written");
        }
        let before = fs::read_link(self.dir.join("..data")).ok();
        symlink(&version, self.dir.join("..data_tmp")).expect("a link");
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).expect("swapped");
        let top = |name: &str| name.split('/').next().expect("a name").to_owned();
        for name in files.keys().map(|name| top(name)) {
            let link = self.dir.join(&name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(&name), link).expect("a link");
            }
        }
        for entry in fs::read_dir(&self.dir).expect("readable").map(|entry| entry.expect("readable")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !files.keys().any(|file| top(file) == name) {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
        if let Some(before) = before {
            fs::remove_dir_all(self.dir.join(before)).expect("removed");
        }
    }
}

/// The flag files of an overlay at the paths at which its pod sees them, with secrets that are in this directory.
fn flag_files(objects: &[Value], secrets: &Path) -> BTreeMap<String, String> {
    let volumes = pod(objects)["volumes"].as_array().expect("volumes");
    let volume = &volumes.iter().find(|volume| volume["name"] == "flags").expect("the flags")["configMap"];
    let map = find(objects, "ConfigMap", volume["name"].as_str().expect("a name"));
    let items = volume["items"].as_array().expect("items");
    assert_eq!(items.len(), map["data"].as_object().expect("files").len(), "every file of the ConfigMap has a path");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let files = items.iter().map(|item| (text(&item["path"]), text(&map["data"][text(&item["key"])])));
    files.map(|(name, file)| (name, file.replace("/run/secrets/pointsman", &secrets.display().to_string()))).collect()
}

const TOKEN: &str = "a token of an operator";

/// The directory of the secrets, with those that the files name.
fn secrets(dir: &Path) -> PathBuf {
    let secrets = dir.join("secrets");
    fs::create_dir(&secrets).expect("a directory");
    for (name, text) in [("admin-token", TOKEN), ("store-key", &"5a".repeat(32)), ("postgres-password", "secret")] {
        fs::write(secrets.join(name), text).expect("written");
    }
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flag_files_of_the_overlays_pass_the_check_as_the_kubelet_mounts_them() {
    for overlay in OVERLAYS {
        let dir = tempfile::tempdir().expect("a directory");
        let mut volume = ConfigVolume::new(dir.path().join("flags"));
        volume.publish(&flag_files(&objects(overlay), &secrets(dir.path())));
        let checked = cli(&["check", &volume.dir.display().to_string()], &[]).await;
        let text = output_text(&checked);
        assert!(checked.status.success() && !text.contains("warning"), "{overlay}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_config_map_is_in_force_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = flag_files(&objects("sqlite"), &secrets(dir.path()));
    let mut volume = ConfigVolume::new(dir.path().join("flags"));
    volume.publish(&files);
    let mut pointsman = Pointsman::start(&Start::on_sqlite(&volume.dir, dir.path())).await;
    let authorization = format!("Bearer {TOKEN}");
    let get = async |path: &str| {
        let headers = [("authorization", authorization.as_str())];
        pointsman.api_with(http::Method::GET, path, &headers, Value::Null).await.json()
    };
    let until_state = async |route: &str, state: &str| {
        until(&format!("{route} in {state}"), || async {
            (get(&format!("/api/v2/routes/{route}")).await["row"]["requested"] == state).then_some(())
        })
        .await;
    };
    until_state("payments.create", "off").await;
    for (from, to) in [("off", "shadow"), ("shadow", "off"), ("off", "shadow")] {
        let routes = files.get_mut("routes/routes.yaml").expect("the routes");
        *routes = routes.replace(&format!("state: {from}"), &format!("state: {to}"));
        volume.publish(&files);
        until_state("payments.create", to).await;
    }
    // A new file in a directory that is there, then a file that is refused, then one that is removed.
    let more = "routes:\n  - { id: parts.list, match: { method: GET, path: /parts }, legacy: shop, state: off }\n";
    files.insert("routes/parts.yaml".to_owned(), more.to_owned());
    volume.publish(&files);
    until_state("parts.list", "off").await;
    files.insert("routes/parts.yaml".to_owned(), more.replace("legacy: shop", "legacy: nobody"));
    volume.publish(&files);
    until("the refusal", || async { (!get("/api/v2/status").await["flags"]["last_error"].is_null()).then_some(()) })
        .await;
    until_state("parts.list", "off").await;
    files.remove("routes/parts.yaml");
    volume.publish(&files);
    until("the removal", || async {
        let status = get("/api/v2/status").await;
        let routes = status["routes"].as_array().expect("routes").len();
        (routes == 1 && status["flags"]["last_error"].is_null()).then_some(())
    })
    .await;
    assert_eq!(pointsman.stop().await, Some(0));
}
