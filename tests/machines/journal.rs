//! Promise: in systemd's journal, what the agent says has a priority and says which deployment it is about.

use serde_json::Value;

use crate::fleet::{AGENT, Fleet};
use crate::machine::Machine;
use crate::support::world::until;

/// The entries that the journal has for these matches.
fn entries(machine: &Machine<'_>, matches: &str) -> Vec<Value> {
    let text = machine.sh(&format!("journalctl --sync; journalctl --quiet --no-pager --output=json {matches} || true"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What an entry is about, and its priority.
fn about(entry: &Value) -> [&str; 5] {
    ["CLAVEL_DEPLOYMENT", "CLAVEL_UNIT", "CLAVEL_REVISION", "CLAVEL_STEP", "PRIORITY"]
        .map(|field| entry[field].as_str().unwrap_or_default())
}

/// The only entry with this text.
#[track_caller]
fn only<'a>(entries: &'a [Value], text: &str) -> &'a Value {
    let found: Vec<&Value> =
        entries.iter().filter(|entry| entry["MESSAGE"].as_str().is_some_and(|said| said.contains(text))).collect();
    let [entry] = found[..] else { panic!("{} entries have `{text}`: {entries:#?}", found.len()) };
    entry
}

#[test]
fn the_journal_says_which_deployment_a_message_is_about() {
    let fleet = Fleet::new();
    fleet.publish();
    let machine = fleet.boot_switched();
    machine.wait_until_said("web-1: switched to revision 1");
    let of_unit = format!("--unit {AGENT}");
    let all = entries(&machine, &of_unit);
    assert_eq!(about(only(&all, "web-1: fetching")), ["web-1", "web-1", "1", "realise", "6"]);
    assert_eq!(about(only(&all, "web-1: activating")), ["web-1", "web-1", "1", "activate", "6"]);
    assert_eq!(about(only(&all, "web-1: switched to revision 1")), ["web-1", "web-1", "1", "switched", "6"]);
    assert_eq!(about(only(&all, "the branch is at")), ["", "", "", "", "6"]);
    assert_eq!(only(&all, "web-1: activating")["SYSLOG_IDENTIFIER"], "clavel-agent");
    assert_eq!(entries(&machine, &format!("{of_unit} --priority err")), [Value::Null; 0]);

    fleet.edit("activation.sh", "# Who", "ls /nowhere\n# Who");
    fleet.publish();
    machine.wait_for("rolled-back", 1);
    machine.wait_until_said("error: web-1: the activation");
    let errors = entries(&machine, "--priority err CLAVEL_DEPLOYMENT=web-1");
    let failure = only(&errors, "error: web-1: the activation of `web-1` failed");
    assert_eq!(about(failure), ["web-1", "web-1", "2", "failed", "3"]);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    let back = entries(&machine, "CLAVEL_STEP=rollback");
    assert_eq!(about(only(&back, "revision 2 failed; going back to")), ["web-1", "web-1", "2", "rollback", "4"]);
}

#[test]
fn a_message_that_the_journal_does_not_take_is_written_to_standard_error() {
    let fleet = Fleet::new();
    fleet.publish();
    let machine = fleet.boot();
    // The stream that standard error leads to is there, and the socket for messages with fields is not.
    machine.sh(&format!(
        "mkdir -p /run/systemd/system/{AGENT}.d; \
         printf '[Service]\\nInaccessiblePaths=/run/systemd/journal/socket\\n' > /run/systemd/system/{AGENT}.d/socket.conf; \
         systemctl daemon-reload; systemctl enable --now {AGENT}"
    ));
    let said = || entries(&machine, &format!("--unit {AGENT}"));
    until("the agent says what it does", || {
        said().iter().any(|entry| entry["MESSAGE"].as_str().is_some_and(|said| said.starts_with("web-1: ")))
    });
    let all = said();
    assert_eq!(about(only(&all, "the branch is at")), ["", "", "", "", "6"]);
    assert_eq!(about(only(&all, "web-1: fetching")), ["", "", "", "", "6"]);
}
