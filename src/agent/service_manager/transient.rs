//! Units that systemd runs for the agent, and that outlive it (systemd-run(1)): an activation, and the timer of a way back.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Name;
use crate::process::Invocation;

/// How long systemd may take to take up a unit, or to end one.
const ANSWER: Duration = Duration::from_secs(30);

/// The service manager that runs units for this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::agent) enum Manager {
    /// That of the machine.
    System,
    /// That of the user who runs the agent.
    User,
}

/// The name of a unit, without its suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct UnitName(String);

impl UnitName {
    /// The unit that does `what` for a unit of the fleet, such as `clavel-activation-web-1`.
    pub(in crate::agent) fn of(what: &str, unit: &Name) -> Self {
        Self(format!("clavel-{what}-{}", escaped(unit.as_str())))
    }

    /// The same with one more word, so that it is like no other.
    pub(in crate::agent) fn with(&self, word: &str) -> Self {
        Self(format!("{self}-{}", escaped(word)))
    }

    /// The name of its service.
    pub(in crate::agent) fn service(&self) -> String {
        format!("{self}.service")
    }
}

impl std::fmt::Display for UnitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// `text` as a part of a unit's name (systemd.unit(5), "String Escaping for Inclusion in Unit Names"). `@` would make it the instance of
/// a template.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    text.bytes().map(escape).collect()
}

impl Manager {
    /// The manager of this agent; none where systemd does not run the machine (`sd_booted(3)`), or no user's manager runs.
    pub(in crate::agent) fn find() -> Option<Self> {
        if !cfg!(target_os = "linux") || !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        if rustix::process::geteuid().is_root() {
            return Some(Self::System);
        }
        let folder = std::env::var_os("XDG_RUNTIME_DIR")?;
        Path::new(&folder).join("systemd/private").exists().then_some(Self::User)
    }

    /// Runs `command` as a unit, with these options of systemd-run.
    pub(in crate::agent) fn run_unit(
        self,
        unit: &UnitName,
        options: impl IntoIterator<Item = OsString>,
        command: impl IntoIterator<Item = OsString>,
    ) -> Invocation {
        let run = self.program("systemd-run").args(["--quiet", "--collect", "--no-ask-password"]);
        let run = run.arg(format!("--unit={unit}")).args(options).arg("--");
        run.args(command).within(ANSWER)
    }

    /// A question or a request to systemd.
    pub(in crate::agent) fn systemctl<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Invocation {
        self.program("systemctl").arg("--no-ask-password").args(arguments).within(ANSWER)
    }

    /// The words of a shell that kill every process of the unit.
    pub(in crate::agent) fn kill_command(self, unit: &UnitName) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["systemctl".into()];
        words.extend(self.option().map(OsString::from));
        words.extend(["kill", "--signal=KILL", &unit.service()].map(OsString::from));
        words
    }

    fn program(self, program: &str) -> Invocation {
        let run = Invocation::new(program);
        match self.option() {
            Some(option) => run.arg(option),
            None => run,
        }
    }

    fn option(self) -> Option<&'static str> {
        match self {
            Self::System => None,
            Self::User => Some("--user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_units_name_is_one_of_systemd() {
        let of = |name: &str| UnitName::of("activation", &name.parse().unwrap());
        assert_eq!(of("web-1").service(), "clavel-activation-web-1.service");
        assert_eq!(of("alice@air").with("8 1").service(), "clavel-activation-alice\\x40air-8\\x201.service");
    }
}
