//! Promise: the agent switches a machine to what is published for it.

use crate::fleet::{AGENT, Fleet};

/// A service that stays, and does `on_reload` when it is reloaded.
fn service(description: &str, more: &str) -> String {
    format!(
        "[Unit]\nDescription={description}\n{more}\n[Service]\nExecStart=/bin/sleep infinity\n\
         ExecReload=/bin/sh -c 'echo {description} > /run/reloaded'\n[Install]\nWantedBy=multi-user.target\n"
    )
}

#[test]
fn an_empty_machine_makes_its_first_switch() {
    let fleet = Fleet::new();
    let machine = fleet.boot();
    machine.run(&["test", "-e", "/nix/var/nix/profiles/system"]).refused(1, "");
    let system = fleet.publish();
    machine.switch_first();
    machine.assert_runs(&system);
    assert_eq!(machine.activations(), [system]);
    assert_eq!(machine.sh("cat /run/greeting"), "first");
    assert_eq!(machine.property("greeter.service", "ActiveState"), "active");
    assert_eq!(machine.sh("readlink -f /etc/systemd/system/greeter.service | grep -c ^/nix/store/"), "1");
    machine.wait_until_said("web-1: switched to revision 1");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}

#[test]
fn a_revision_changes_adds_restarts_reloads_and_removes_services() {
    let fleet = Fleet::new();
    for name in ["steady", "leaving"] {
        fleet.write_unit(&format!("{name}.service"), &service(name, ""));
    }
    fleet.write_unit("restarted.service", &service("one", "X-StopIfChanged=false"));
    fleet.write_unit("reloaded.service", &service("one", "X-ReloadIfChanged=true"));
    fleet.publish();
    let machine = fleet.boot_switched();
    let invocations = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| machine.property(&format!("{name}.service"), "InvocationID")).collect()
    };
    let (kept, renewed) = (["steady", "reloaded"], ["greeter", "restarted"]);
    let before = (invocations(&kept), invocations(&renewed));
    assert!(before.0.iter().chain(&before.1).all(|id| !id.is_empty()), "{before:?}");

    fleet.edit("units/greeter.service", "first", "second");
    fleet.write_unit("restarted.service", &service("two", "X-StopIfChanged=false"));
    fleet.write_unit("reloaded.service", &service("two", "X-ReloadIfChanged=true"));
    fleet.remove_unit("leaving.service");
    fleet.write_unit("arriving.service", &service("arriving", ""));
    machine.sh(&format!("systemctl stop {AGENT}"));
    let system = fleet.publish();
    machine.sh(&format!("nix-store --realise --option trusted-substituters file:///srv/cache --option substituters file:///srv/cache --option require-sigs false {system}"));
    let planned = machine.sh("clavel-agent plan");
    for would in
        ["would restart the following units: restarted.service", "would reload the following units: reloaded.service"]
    {
        assert!(planned.contains(would), "{planned}");
    }
    machine.sh(&format!("systemctl start {AGENT}"));
    machine.wait_for("confirmed", 2);
    machine.assert_runs(&system);

    assert_eq!(machine.sh("cat /run/greeting"), "second");
    assert_eq!(machine.sh("cat /run/reloaded"), "two");
    assert_eq!(machine.property("arriving.service", "ActiveState"), "active");
    assert_eq!(machine.property("leaving.service", "LoadState"), "not-found");
    assert_eq!(machine.property("leaving.service", "ActiveState"), "inactive");
    assert_eq!(invocations(&kept), before.0);
    let after = invocations(&renewed);
    assert!(after.iter().zip(&before.1).all(|(after, before)| after != before), "{before:?} {after:?}");
    for unit in ["greeter", "restarted"] {
        assert_eq!(machine.property(&format!("{unit}.service"), "ActiveState"), "active", "{unit}");
    }
    assert_eq!(machine.activations().len(), 2);
}
