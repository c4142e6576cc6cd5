//! Steps that stream their reply, over several files.

use super::set::Set;

#[test]
fn a_reply_is_streamed_by_a_route_that_keeps_no_runs_and_not_by_a_child() {
    let workflow = "workflow: download\nsteps:\n  file: { call: 'GET ${services.bank}/file', stream: true }\n\
                    respond: { status: 200, body: '${steps.file.output}' }\n";
    let route = "routes:\n  - { id: files, match: { method: GET, path: /file }, legacy: shop, workflow: download }\n";
    let set = Set::valid().put("workflows/download.yaml", workflow).put("routes/files.yaml", route);
    let shown = set.shown();
    let message = "error: the step `file` streams its reply, and this route keeps what its runs read\n \
                   --> flags/routes/files.yaml:2:79\n";
    assert!(set.read().is_err() && shown.contains(message), "{shown}");
    let set = set.put("routes/files.yaml", route.replace("workflow:", "keep: none, workflow:"));
    assert!(set.read().is_ok(), "{}", set.shown());
    let set = set.edit("workflows/create-order.yaml", "respond:", "  more: { run: download }\nrespond:");
    let shown = set.shown();
    let message = "error: the step `file` of `download` streams its reply, which only a caller gets\n \
                   --> flags/workflows/create-order.yaml:7:16\n";
    assert!(set.read().is_err() && shown.contains(message), "{shown}");
}
