//! The words of `status` for an agent that is well, one that has problems and one that is gone.

use super::view::{AgentRow, EventsRow, FilesRow, HookRow, MapRow, PodsRow, PoliciesRow};
use super::*;
use crate::cli::Output;
use crate::golden;
use crate::sources::Problem;

fn view(running: bool) -> StatusView {
    StatusView {
        version: 1,
        node: "node-a".into(),
        kernel: "6.1.0".into(),
        agent: Some(AgentRow {
            running,
            pid: 42,
            release: running.then(|| "0.1.0".into()),
            started_at: running.then(|| "2026-01-02T03:04:05.000000Z".into()),
            applied_at: "2026-01-02T03:04:06.000000Z".into(),
            generation: 7,
            apply_seconds: running.then_some(0.0123),
            error: None,
        }),
        pods: PodsRow { listed: 3, covered: 2, enforced: 2, pending: Vec::new() },
        policies: PoliciesRow { in_force: 4, kept: 0, tables: 2, enforcement: "Enforce".into() },
        hooks: vec![HookRow { hook: "connect4".into(), places: 1 }],
        maps: vec![MapRow { map: "flows".into(), entries: 90, capacity: 100 }],
        events: EventsRow { lost: 0, limited: 12 },
        files: running.then_some(FilesRow { watched: 3, unwatched: 0, errors: 0 }),
        problems: Vec::new(),
        warnings: vec!["a rule is shadowed".into()],
    }
}

fn written(view: &StatusView, output: Output) -> String {
    let mut out = Vec::new();
    output::write(&mut out, view, output, false).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn everything_is_on_one_page() {
    assert_eq!(
        written(&view(true), Output::Table),
        "node-a, Linux 6.1.0: well\n  \
         agent     runs (pid 42, release 0.1.0) since 2026-01-02T03:04:05.000000Z, last applied \
         2026-01-02T03:04:06.000000Z (generation 7) in 12.3 ms\n  \
         pods      3 listed, 2 covered by policies, 2 judged by the kernel\n  \
         policies  4 in force, 2 tables in the kernel\n  \
         files     3 directories watched, 0 not, 0 errors\n  \
         events    0 lost, 12 counted as repeats\n\
         hooks\n  program   places\n  connect4       1\n\
         maps\n  map    entries  capacity  used\n  flows       90       100  90 %\n\
         warning a rule is shadowed\n"
    );
}

#[test]
fn every_state_is_written_as_it_was() {
    golden::insist("status", &view(true));
    let mut ill = StatusView { problems: vec![Problem::new("a.yaml", "is broken")], ..view(false) };
    ill.pods.pending = vec!["shop/web".into()];
    ill.policies.enforcement = "Audit".into();
    golden::insist("status-dead", &ill);
    golden::insist("status-nothing", &StatusView { agent: None, files: None, ..view(true) });
}

#[test]
fn cluster_wide_audit_is_said_in_so_many_words() {
    let mut audit = view(true);
    assert!(!written(&audit, Output::Table).contains("no policy refuses anything"));
    "Audit".clone_into(&mut audit.policies.enforcement);
    assert!(written(&audit, Output::Table).contains("  audit     enforcement is Audit: no policy refuses anything\n"));
    assert!(audit.is_well());
}

#[test]
fn an_agent_that_is_gone_is_said_to_be_gone() {
    let gone = view(false);
    assert!(!gone.is_well());
    let text = written(&gone, Output::Table);
    assert!(text.starts_with("node-a, Linux 6.1.0: without an agent\n"), "{text}");
    assert!(text.contains("does not run (pid 42 is gone)") && text.contains("the kernel keeps enforcing"), "{text}");
    let nobody = StatusView { agent: None, ..gone };
    assert!(written(&nobody, Output::Table).contains("has left no status"));
}

#[test]
fn problems_pods_that_wait_and_a_failed_round_need_a_look() {
    let mut waits = view(true);
    assert!(waits.is_well());
    waits.pods.pending.push("shop/web".into());
    let problems = StatusView { problems: vec![Problem::new("a.yaml", "is broken")], ..view(true) };
    let mut failed = view(true);
    failed.agent.as_mut().unwrap().error = Some("no room".into());
    for (view, words) in [(waits, "shop/web"), (problems, "problem a.yaml: is broken"), (failed, "no room")] {
        assert!(!view.is_well());
        let text = written(&view, Output::Table);
        assert!(text.contains("needs a look") && text.contains(words), "{text}");
    }
}

#[test]
fn what_the_socket_answers_is_read_as_it_was_written() {
    for view in [view(true), view(false)] {
        let json = written(&view, Output::Json);
        let read: StatusView = serde_json::from_str(&json).unwrap();
        assert_eq!(written(&read, Output::Json), json);
        assert!(json.contains("\"version\": 1"));
    }
}
