//! What has to hold on a machine after a switch, for the new revision to stay. No I/O.
//!
//! The checks come with the signed deployment, and a machine adds more of its own. They are the checks of DESIGN.md's probation; those of
//! a set-up are in `check`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::text::validated_text;
use super::{Invalid, List, Map, Name, Span, is_printable};
use crate::redact::user_part;

/// The most checks of a deployment or of a machine.
pub const MAX_CHECKS: usize = 64;

/// Checks by their names.
pub type Checks = Map<Name, Check, MAX_CHECKS>;

/// A check, as a document, a flake and a machine's configuration have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "CheckForm", into = "CheckForm")]
#[schemars(with = "CheckForm")]
pub struct Check {
    /// What is looked at.
    pub target: CheckTarget,
    /// The time from the end of one look to the next.
    pub interval: Option<Span>,
    /// The time that one look may take.
    pub timeout: Option<Span>,
    /// What follows where it does not hold.
    pub mode: CheckMode,
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CheckTarget {
    /// A request of this URL is answered with a status from 200 to 399.
    Http(HttpUrl),
    /// A connection to this address is accepted.
    Tcp(TcpAddress),
    /// This program, with its arguments, ends with exit code 0.
    Exec(List<Argument, 64>),
    /// These units of systemd are active; where none is named, no unit has failed that had not before the switch.
    Systemd(List<SystemdUnit, 64>),
}

/// What follows where a check does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckMode {
    /// The machine goes back to what ran before.
    #[default]
    Enforce,
    /// It is told, and nothing else.
    Permissive,
}

impl CheckMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it like this")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Check {
    /// The time between two looks where none is set.
    pub const INTERVAL: Span = Span::of_seconds(5);
    /// The time that one look may take where none is set.
    pub const TIMEOUT: Span = Span::of_seconds(10);
}

/// The fields of a check, of which exactly one names what it looks at.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Check")]
struct CheckForm {
    /// A program with its arguments, which has to end with exit code 0. It runs as the user of the unit's activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exec: Option<List<Argument, 64>>,
    /// A URL, whose answer has to have a status from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<HttpUrl>,
    /// The time from the end of one look to the next; 5 seconds where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<Span>,
    /// What follows where it does not hold.
    #[serde(default, skip_serializing_if = "CheckMode::is_default")]
    mode: CheckMode,
    /// Units that have to be active; with an empty list, no unit may have failed that had not before the switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    systemd: Option<List<SystemdUnit, 64>>,
    /// An address that has to accept a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<TcpAddress>,
    /// The time that one look may take; 10 seconds where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Span>,
    #[serde(flatten, skip_serializing)]
    #[schemars(skip)]
    others: BTreeMap<String, serde_json::Value>,
}

impl TryFrom<CheckForm> for Check {
    type Error = Invalid;

    fn try_from(form: CheckForm) -> Result<Self, Invalid> {
        let CheckForm { exec, http, interval, mode, systemd, tcp, timeout, others: _ } = form;
        let named = [
            exec.map(CheckTarget::Exec),
            http.map(CheckTarget::Http),
            systemd.map(CheckTarget::Systemd),
            tcp.map(CheckTarget::Tcp),
        ];
        if let Some(CheckTarget::Exec(command)) = &named[0]
            && !command.first().is_some_and(|program| program.as_str().starts_with('/'))
        {
            let program = command.first().map(Argument::as_str).unwrap_or_default();
            return Err(Invalid::new(
                "the program of a check",
                program,
                "`exec` begins with the absolute path of a program",
            ));
        }
        let mut named = named.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(target), None) => Ok(Self { target, interval, timeout, mode }),
            (None, _) => Err(Invalid::new("a check", "", "it needs one of `exec`, `http`, `systemd` and `tcp`")),
            (Some(one), Some(other)) => Err(Invalid::new(
                "a check",
                &format!("{} and {}", one.key(), other.key()),
                "it may have only one of `exec`, `http`, `systemd` and `tcp`; make it two checks",
            )),
        }
    }
}

impl From<Check> for CheckForm {
    fn from(Check { target, interval, timeout, mode }: Check) -> Self {
        let form = Self { interval, mode, timeout, ..Self::default() };
        match target {
            CheckTarget::Exec(exec) => Self { exec: Some(exec), ..form },
            CheckTarget::Http(http) => Self { http: Some(http), ..form },
            CheckTarget::Systemd(units) => Self { systemd: Some(units), ..form },
            CheckTarget::Tcp(tcp) => Self { tcp: Some(tcp), ..form },
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, interval, timeout, mode } = self;
        target.fmt(f)?;
        interval.iter().try_for_each(|interval| write!(f, ", every {interval}"))?;
        timeout.iter().try_for_each(|timeout| write!(f, ", within {timeout}"))?;
        match mode {
            CheckMode::Enforce => Ok(()),
            CheckMode::Permissive => f.write_str(", only told"),
        }
    }
}

impl CheckTarget {
    fn key(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
            Self::Systemd(_) => "systemd",
            Self::Tcp(_) => "tcp",
        }
    }
}

impl fmt::Display for CheckTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(command) => {
                f.write_str("exec")?;
                command.iter().try_for_each(|argument| write!(f, " {argument}"))
            }
            Self::Http(url) => write!(f, "http {url}"),
            Self::Systemd(units) if units.is_empty() => f.write_str("no unit of systemd that failed since the switch"),
            Self::Systemd(units) => {
                let units: Vec<_> = units.iter().map(SystemdUnit::as_str).collect();
                write!(f, "systemd {}", units.join(", "))
            }
            Self::Tcp(address) => write!(f, "tcp {address}"),
        }
    }
}

validated_text! {
    /// The URL of a check. It has no user and no password, since everybody can read it.
    HttpUrl, what: "the URL of a check", check: check_url, pattern: "^https?://[!-~]{1,2000}$"
}

validated_text! {
    /// A host and a port.
    TcpAddress, what: "the address of a check", check: check_address, pattern: "^[!-~]{1,255}:[0-9]{1,5}$"
}

validated_text! {
    /// The name of a unit of systemd, with its type (systemd.unit(5)).
    SystemdUnit, what: "a unit of systemd", check: check_systemd_unit, pattern: r"^[A-Za-z0-9:_.\\@-]{1,255}$"
}

validated_text! {
    /// A program, or one of its arguments.
    Argument, what: "an argument of a program", check: check_argument, pattern: "^[^\\x00-\\x1f\\x7f]{0,4096}$"
}

fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest.filter(|rest| (1..=2000).contains(&rest.len())) else {
        return Err("it has to begin with http:// or https://, and to have at most 2,000 characters".to_owned());
    };
    if !rest.chars().all(|c| c.is_ascii_graphic()) {
        return Err("it may have ASCII characters without white space alone".to_owned());
    }
    if user_part(rest) > 0 {
        return Err("it may have no user and no password: everybody can read the checks of a deployment".to_owned());
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), String> {
    let parts = address.rsplit_once(':').filter(|(host, _)| (1..=255).contains(&host.len()));
    let is_host = |host: &str| {
        host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
            || host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
    };
    match parts {
        Some((host, port)) if is_host(host) && port.parse::<std::num::NonZeroU16>().is_ok() => Ok(()),
        _ => Err("it has to read like 127.0.0.1:22, [::1]:22 or localhost:22".to_owned()),
    }
}

fn check_systemd_unit(unit: &str) -> Result<(), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    if !(1..=255).contains(&unit.len()) || !unit.chars().all(is_name) || unit.starts_with('-') {
        return Err("it has to be the name of a unit, as `systemctl` lists it".to_owned());
    }
    match unit.rsplit_once('.') {
        Some((name, kind)) if !name.is_empty() && !kind.is_empty() => Ok(()),
        _ => Err("it has to end in the type of the unit, as `sshd.service` does".to_owned()),
    }
}

fn check_argument(argument: &str) -> Result<(), String> {
    if argument.len() > 4096 || !argument.chars().all(is_printable) {
        return Err("it may have at most 4,096 bytes, and no control characters".to_owned());
    }
    Ok(())
}

/// A check that a person wrote, in a flake or a machine's configuration: a field that does not exist is an error, and not a field of a
/// newer version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenCheck(pub Check);

impl<'de> Deserialize<'de> for WrittenCheck {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = CheckForm::deserialize(deserializer)?;
        if let Some(other) = form.others.keys().next() {
            let known = "`exec`, `http`, `interval`, `mode`, `systemd`, `tcp` and `timeout`";
            let why = format!("a check has no such field; it has {known}");
            return Err(serde::de::Error::custom(Invalid::new("a field of a check", other, why)));
        }
        form.try_into().map(Self).map_err(serde::de::Error::custom)
    }
}

/// How a revision proves itself after a switch, and who confirms it. What is not set here, the machine or Clavel decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Probation {
    /// Who confirms the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirmation>,
    /// The time after which the machine goes back where the revision is not confirmed; 5 minutes where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// How long all checks have to hold without a break; 30 seconds where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
}

/// Who confirms a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmation {
    /// The agent does, once all checks hold.
    Automatic,
    /// A person does, by `clavel-agent confirm`, once all checks hold.
    Manual,
}

impl fmt::Display for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        })
    }
}

impl Probation {
    /// The time after which the machine goes back where none is set.
    const DEADLINE: Span = Span::of_seconds(5 * 60);
    /// How long all checks have to hold where nothing is set.
    const SETTLE: Span = Span::of_seconds(30);

    /// What is set, for people.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let Self { confirm, deadline, settle } = self;
        let confirm = confirm.map(|confirm| ("confirm", confirm.to_string()));
        let span = |name, span: &Option<Span>| span.map(|span| (name, span.to_string()));
        [confirm, span("deadline", deadline), span("settle", settle)].into_iter().flatten().collect()
    }

    /// How long all checks have to hold, and when the machine goes back. Where one is not set, it leaves time for the other.
    pub fn times(&self) -> (Duration, Duration) {
        let (settle, deadline) = (Self::SETTLE.get(), Self::DEADLINE.get());
        match (self.settle.map(Span::get), self.deadline.map(Span::get)) {
            (None, None) => (settle, deadline),
            (None, Some(deadline)) => (settle.min(deadline / 2), deadline),
            (Some(settle), Some(deadline)) if settle < deadline => (settle, deadline),
            // Where both are set, they come from different places.
            (Some(settle), other) => (settle, other.unwrap_or(deadline).max(settle * 2)),
        }
    }

    /// These settings, and those of `other` where these have none. Where one of them asks for a person, a person is asked.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let manual = [self.confirm, other.confirm].into_iter().flatten().find(|of| *of == Confirmation::Manual);
        Self {
            confirm: manual.or(self.confirm).or(other.confirm),
            deadline: self.deadline.or(other.deadline),
            settle: self.settle.or(other.settle),
        }
    }
}

/// The settings that a person wrote, in a flake or a machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenProbation {
    confirm: Option<Confirmation>,
    deadline: Option<Span>,
    settle: Option<Span>,
}

impl TryFrom<WrittenProbation> for Probation {
    type Error = Invalid;

    fn try_from(WrittenProbation { confirm, deadline, settle }: WrittenProbation) -> Result<Self, Invalid> {
        match (settle, deadline) {
            (Some(settle), Some(deadline)) if settle >= deadline => {
                let why = format!("no revision could prove itself: `deadline` is {deadline}; make it longer");
                Err(Invalid::new("a time to settle", &settle.to_string(), why))
            }
            _ => Ok(Self { confirm, deadline, settle }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_check_is_written_as_it_is_read() {
        for check in [
            json!({ "exec": ["/run/current-system/sw/bin/true", "-x", ""] }),
            json!({ "http": "http://127.0.0.1:8080/health?x=1" }),
            json!({ "http": "https://web.example.org/", "interval": "10s", "timeout": "2s", "mode": "permissive" }),
            json!({ "systemd": [] }),
            json!({ "systemd": ["sshd.service", "getty@tty1.service", "x-\\x2d.mount"] }),
            json!({ "tcp": "127.0.0.1:22" }),
            json!({ "tcp": "[::1]:22" }),
        ] {
            let read: Check = serde_json::from_value(check.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), check);
            assert_eq!(serde_json::from_value::<WrittenCheck>(check).unwrap(), WrittenCheck(read));
        }
    }

    #[test]
    fn what_is_no_check_is_told() {
        for (check, why) in [
            (json!({}), "needs one of"),
            (json!({ "interval": "1s" }), "needs one of"),
            (json!({ "exec": ["/x"], "tcp": "a:1" }), "`exec and tcp`"),
            (json!({ "exec": [] }), "absolute path"),
            (json!({ "exec": ["x"] }), "absolute path"),
            (json!({ "exec": ["/x", "a\u{0}b"] }), "control characters"),
            (json!({ "http": "ftp://x" }), "http://"),
            (json!({ "http": "http://u:p@x/" }), "no user"),
            (json!({ "http": "http://a b" }), "white space"),
            (json!({ "systemd": ["sshd"] }), "type of the unit"),
            (json!({ "systemd": ["--all.service"] }), "name of a unit"),
            (json!({ "tcp": "22" }), "has to read like"),
            (json!({ "tcp": "x:0" }), "has to read like"),
            (json!({ "tcp": "[x]:1" }), "has to read like"),
            (json!({ "tcp": "x:1", "mode": "maybe" }), "unknown variant"),
            (json!({ "tcp": "x:1", "timeout": "0s" }), "longer than zero"),
        ] {
            let error = serde_json::from_value::<Check>(check.clone()).unwrap_err().to_string();
            assert!(error.contains(why), "{check}: {error}");
        }
        // A field of a newer version is none of a person.
        let newer = json!({ "tcp": "x:1", "intervall": "1s" });
        serde_json::from_value::<Check>(newer.clone()).unwrap();
        let error = serde_json::from_value::<WrittenCheck>(newer).unwrap_err().to_string();
        assert!(error.contains("`intervall` is not a field of a check"), "{error}");
    }

    #[test]
    fn what_is_not_set_is_taken_from_elsewhere() {
        let written = |value| Probation::try_from(serde_json::from_value::<WrittenProbation>(value).unwrap());
        let of = |value| written(value).unwrap();
        let both = of(json!({ "settle": "1s" })).or(&of(json!({ "settle": "2s", "confirm": "manual" })));
        assert_eq!(both, of(json!({ "settle": "1s", "confirm": "manual" })));
        assert!(serde_json::from_value::<WrittenProbation>(json!({ "setle": "1s" })).is_err());
        let error = written(json!({ "settle": "1m", "deadline": "60s" })).unwrap_err().to_string();
        assert!(error.contains("`1m`") && error.contains("`deadline` is 1m"), "{error}");
        let seconds = |settle, deadline| (Duration::from_secs(settle), Duration::from_secs(deadline));
        for (set, times) in [
            (json!({}), seconds(30, 300)),
            (json!({ "deadline": "20s" }), seconds(10, 20)),
            (json!({ "settle": "10m" }), seconds(600, 1200)),
            (json!({ "settle": "1s", "deadline": "2s" }), seconds(1, 2)),
        ] {
            assert_eq!(of(set).times(), times);
        }
        let both = of(json!({ "settle": "1m" })).or(&of(json!({ "deadline": "30s" })));
        assert_eq!(both.times(), seconds(60, 120));
    }
}
