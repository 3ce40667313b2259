//! One look at what a check is about.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use tokio::net::TcpStream;

use super::super::activating::ActivationProgram;
use crate::git::{http_status, on_medium};
use crate::model::{Argument, Check, CheckTarget, SystemdUnit, describe_error};
use crate::process::Invocation;

/// The most bytes of the output of a program.
const MAX_OUTPUT: usize = 4 << 20;
/// How much longer a thread may take than the request in it.
const GRACE: Duration = Duration::from_secs(1);
/// How long systemd may take to list its units.
const LIST_TIME: Duration = Duration::from_secs(10);

/// The words before a program that make it run as the user of the unit's activation, and its variables.
type ProgramSetting = (Vec<OsString>, Vec<(OsString, Option<OsString>)>);

/// What the looks at a deployment's checks have in common.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Surroundings {
    /// How programs run, or why none can.
    pub(in crate::agent) programs: Result<ProgramSetting, String>,
    /// The units of systemd that had failed before the switch.
    pub(in crate::agent) failed_before: BTreeSet<String>,
}

/// Looks once. The error says why the check does not hold.
pub(in crate::agent) async fn look(check: &Check, surroundings: &Surroundings) -> Result<(), String> {
    let within = check.timeout.unwrap_or(Check::TIMEOUT).get();
    match &check.target {
        CheckTarget::Http(url) => look_at_http(url.as_str(), within).await,
        CheckTarget::Tcp(address) => match tokio::time::timeout(within, TcpStream::connect(address.as_str())).await {
            Ok(connected) => connected.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(too_slow(within)),
        },
        CheckTarget::Exec(command) => run(command, surroundings, within).await,
        CheckTarget::Systemd(units) if units.is_empty() => {
            let failed = failed_units(within).await?;
            let new: Vec<&str> = failed.difference(&surroundings.failed_before).map(String::as_str).collect();
            if new.is_empty() { Ok(()) } else { Err(format!("failed since the switch: {}", new.join(", "))) }
        }
        CheckTarget::Systemd(units) => look_at_units(units, within).await,
    }
}

async fn look_at_http(url: &str, within: Duration) -> Result<(), String> {
    let asked = url.to_owned();
    let status = on_medium("http", within + GRACE, move || http_status(&asked, within)).await;
    match status.map_err(|error| format!("cannot start a thread: {error}"))? {
        None => Err(too_slow(within)),
        Some(Err(error)) => Err(error),
        Some(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Some(Ok(status)) => Err(format!("it answered with HTTP status {status}")),
    }
}

async fn run(command: &[Argument], surroundings: &Surroundings, within: Duration) -> Result<(), String> {
    let (run_as, environment) = surroundings.programs.as_ref().map_err(Clone::clone)?;
    let words = command.iter().map(|argument| OsString::from(argument.as_str()));
    let mut words = run_as.iter().cloned().chain(words);
    let program = ActivationProgram {
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        environment: environment.clone(),
        directory: Some("/".into()),
        is_of_another_user: !run_as.is_empty(),
    };
    let run = program.invocation().within(within).at_most(MAX_OUTPUT).run().await;
    run.map(drop).map_err(|error| describe_error(&error))
}

async fn look_at_units(units: &[SystemdUnit], within: Duration) -> Result<(), String> {
    let show = systemctl(["show", "--property=Id,ActiveState,LoadState", "--"], within);
    let output =
        show.args(units.iter().map(SystemdUnit::as_str)).run().await.map_err(|error| describe_error(&error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let states = states_of(&text);
    // systemd answers in the order in which it was asked.
    let inactive = units.iter().enumerate().filter_map(|(place, unit)| match states.get(place).map(String::as_str) {
        // As `systemctl is-active` has it.
        Some("active" | "reloading") => None,
        Some(state) => Some(format!("{} is {state}", unit.as_str())),
        None => Some(format!("{} is not known to systemd", unit.as_str())),
    });
    let inactive: Vec<String> = inactive.collect();
    if inactive.is_empty() { Ok(()) } else { Err(inactive.join(", ")) }
}

/// The state of each unit in the output of `systemctl show`: a paragraph for each, with a property in each line.
fn states_of(output: &str) -> Vec<String> {
    let value = |paragraph: &str, property: &str| {
        let found = paragraph.lines().find_map(|line| line.strip_prefix(property)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    let state = |paragraph: &str| match value(paragraph, "LoadState").as_str() {
        "not-found" => "not there".to_owned(),
        _ => value(paragraph, "ActiveState"),
    };
    output.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()).map(state).collect()
}

/// The units of systemd that have failed; an error where systemd cannot be asked.
pub(in crate::agent) async fn failed_units(within: Duration) -> Result<BTreeSet<String>, String> {
    let list = systemctl(["list-units", "--state=failed", "--full", "--plain", "--no-legend"], within);
    let output = list.run().await.map_err(|error| describe_error(&error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect())
}

/// The units that have failed before a switch, where a check is about those that fail later.
pub(in crate::agent) async fn failed_before(mut checks: impl Iterator<Item = &Check>) -> BTreeSet<String> {
    let asks = checks.any(|check| matches!(&check.target, CheckTarget::Systemd(units) if units.is_empty()));
    // Where systemd does not answer, the check itself will tell.
    if asks { failed_units(LIST_TIME).await.unwrap_or_default() } else { BTreeSet::new() }
}

fn systemctl<const N: usize>(arguments: [&str; N], within: Duration) -> Invocation {
    let run = Invocation::new("systemctl").arg("--no-pager").args(arguments);
    run.within(within).at_most(MAX_OUTPUT)
}

fn too_slow(within: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(within))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn found(check: serde_json::Value) -> Result<(), String> {
        let surroundings =
            Surroundings { programs: Err("the unit has no user".to_owned()), failed_before: BTreeSet::new() };
        look(&serde_json::from_value(check).unwrap(), &surroundings).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_is_accepted_or_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        found(json!({ "tcp": address })).await.unwrap();
        drop(listener);
        assert!(found(json!({ "tcp": address })).await.unwrap_err().contains("refused"));
        assert!(found(json!({ "http": format!("http://{address}/") })).await.unwrap_err().contains("connect"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_server_that_does_not_answer_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = found(json!({ "http": url, "timeout": "100ms" })).await.unwrap_err();
        assert!(error.contains("imeout") || error.contains("no answer within"), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_has_the_users_words_before_it_and_says_why_it_failed() {
        let check = |script: &str| serde_json::from_value(json!({ "exec": ["/bin/sh", "-c", script] })).unwrap();
        let run_as = ["env", "AS=alice"].map(OsString::from).into();
        let environment = vec![("CLAVEL_UNIT".into(), Some("web-1".into()))];
        let surroundings = Surroundings { programs: Ok((run_as, environment)), failed_before: BTreeSet::new() };
        look(&check("test $AS.$CLAVEL_UNIT = alice.web-1"), &surroundings).await.unwrap();
        let error = look(&check("echo no space >&2; exit 3"), &surroundings).await.unwrap_err();
        assert!(error.contains("exit code 3") && error.contains("no space"), "{error}");
        assert_eq!(found(json!({ "exec": ["/bin/true"] })).await, Err("the unit has no user".to_owned()));
    }

    #[test]
    fn the_states_of_units_are_read() {
        let output = "Id=a.service\nLoadState=loaded\nActiveState=active\n\nId=b.service\nLoadState=loaded\nActiveState=failed\n\nId=c.service\nLoadState=not-found\nActiveState=inactive\n";
        assert_eq!(states_of(output), ["active", "failed", "not there"]);
    }
}
